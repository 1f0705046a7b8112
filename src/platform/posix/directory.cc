#include "platform/directory.h"

#include <sys/stat.h>
#include <unistd.h>

namespace cairn::platform {

int make_directory(const std::string& path, unsigned mode) {
  return ::mkdir(path.c_str(), static_cast<mode_t>(mode));
}

int remove_directory(const std::string& path) { return ::rmdir(path.c_str()); }

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

bool is_absolute(const std::string& path) { return path.starts_with('/'); }

}  // namespace cairn::platform
