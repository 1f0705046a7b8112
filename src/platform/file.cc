#include "platform/file.h"

namespace cairn::platform {

bool exists(const std::string& path) { return status(path).has_value(); }

bool is_regular_file(const std::string& path) {
  const auto found = status(path);
  return found && found->is_regular();
}

bool is_plain_file(const std::string& path) {
  const auto found = link_status(path);
  return found && found->is_regular();
}

}  // namespace cairn::platform
