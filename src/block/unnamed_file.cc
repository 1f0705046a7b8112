#include "block/unnamed_file.h"

#include <cerrno>

#include "base/error.h"
#include "platform/directory.h"
#include "platform/file.h"

namespace cairn {

UnnamedFile::UnnamedFile(const std::string& directory, const std::string& what) {
  fd_ = platform::open_unnamed(directory);
  if (fd_ < 0) throw Error::system(errno, what + " in '" + directory + "'");
}

UnnamedFile::~UnnamedFile() { platform::close(fd_); }

std::string UnnamedFile::path() const { return platform::unnamed_path(fd_); }

}  // namespace cairn
