#include "platform/directory.h"

namespace cairn::platform {

std::string directory_of(std::string_view path) {
  const size_t separator = last_separator(path);
  return separator == std::string_view::npos ? "." : std::string(path.substr(0, separator + 1));
}

}  // namespace cairn::platform
