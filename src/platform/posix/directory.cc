#include "platform/directory.h"

#include <sys/stat.h>
#include <unistd.h>

namespace cairn::platform {

int make_directory(const std::string& path, unsigned mode) {
  return ::mkdir(path.c_str(), static_cast<mode_t>(mode));
}

int remove_directory(const std::string& path) { return ::rmdir(path.c_str()); }

size_t last_separator(std::string_view path) { return path.rfind('/'); }
bool is_absolute(std::string_view path) { return path.starts_with('/'); }
bool has_drive(std::string_view) { return false; }

}  // namespace cairn::platform
