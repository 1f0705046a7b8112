#pragma once

#include "operation/operation.h"

namespace cairn::cli {

// Asks the person at the terminal for an image's passphrase, without showing it; twice where it
// becomes a key. Gives nothing where no person is there. Throws kInvalid when the two differ,
// kCancelled when the person gave up.
std::shared_ptr<const Secret> ask_passphrase(const CancelSource& cancel, const std::string& image,
                                             bool twice);

}  // namespace cairn::cli
