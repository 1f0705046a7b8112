#include "platform/folder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "platform/posix/status.h"

namespace cairn::platform {

int rename_in(int from_folder, const std::string& from, int to_folder, const std::string& to,
              Overwrite overwrite) {
  if (overwrite == Overwrite::kYes)
    return ::renameat(from_folder, from.c_str(), to_folder, to.c_str());
  if (::renameat2(from_folder, from.c_str(), to_folder, to.c_str(), RENAME_NOREPLACE) == 0)
    return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // NFS cannot ask and move in one step.
  if (status_in(to_folder, to)) {
    errno = EEXIST;
    return -1;
  }
  return ::renameat(from_folder, from.c_str(), to_folder, to.c_str());
}

// The kernel resolves the path beneath the directory, whatever links there are and whatever moves
// them meanwhile.
int open_below(int folder, const std::string& path, int flags, Links links, unsigned mode) {
  open_how how = {};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  if (links == Links::kRefuse) how.resolve |= RESOLVE_NO_SYMLINKS;
  const char* const name = path.empty() ? "." : path.c_str();
  while (true) {
    const long fd = ::syscall(SYS_openat2, folder, name, &how, sizeof how);
    // EAGAIN: something was renamed while a `..` was resolved.
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return static_cast<int>(fd);
  }
}

std::optional<FileStatus> status_below(int folder, const std::string& path, Links links) {
  const int fd =
      open_below(folder, path, O_PATH | (links == Links::kRefuse ? O_NOFOLLOW : 0), links);
  if (fd < 0) return std::nullopt;
  struct stat found = {};
  const bool known = ::fstat(fd, &found) == 0;
  const int error = errno;
  ::close(fd);
  errno = error;
  if (!known) return std::nullopt;
  return status_from(found);
}

int sync_volume(int fd) { return ::syncfs(fd); }

}  // namespace cairn::platform
