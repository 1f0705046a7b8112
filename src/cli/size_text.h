#pragma once

#include <string>

#include "cli/session.h"

namespace cairn::cli {

// TEXT as the size parser knows it: "20GiB" becomes "20G", "20GB" the number of 20 × 1000³ bytes.
// Any other text, and all under QEMU's names, stays as it is.
std::string plain_size(const Session& session, std::string text);

// The same under whatever name.
std::string plain_size(std::string text);

// The same for the values of those creation options that are sizes.
void plain_sizes(const Session& session, Options& options);

}  // namespace cairn::cli
