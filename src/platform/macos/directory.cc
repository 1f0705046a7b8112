#include "platform/directory.h"

#include <stdlib.h>
#include <unistd.h>

#include "platform/file.h"

namespace cairn::platform {

// It has a name for a moment: the system has no files without one.
int open_unnamed(const std::string& directory) {
  std::string name = directory + "/cairn-XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd >= 0) ::unlink(name.c_str());
  return fd;
}

std::string unnamed_path(int fd) { return "/dev/fd/" + std::to_string(fd); }

}  // namespace cairn::platform
