#include "cli/prompt.h"

namespace cairn::cli {

// Nobody is asked: passphrases come from --key-file, or as secrets.
std::shared_ptr<const Secret> ask_passphrase(const CancelSource&, const std::string&, bool) {
  return nullptr;
}

}  // namespace cairn::cli
