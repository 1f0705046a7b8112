#include "block/unnamed_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace cairn {

UnnamedFile::UnnamedFile(const std::string& directory, const std::string& what) {
  fd_ = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
    // File systems without such files: a named one, for a moment.
    std::string name = directory + "/cairn-XXXXXX";
    fd_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd_ >= 0) ::unlink(name.c_str());
  }
  if (fd_ < 0) throw Error::system(errno, what + " in '" + directory + "'");
}

UnnamedFile::~UnnamedFile() { ::close(fd_); }

std::string UnnamedFile::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

}  // namespace cairn
