#include "protocol/vvfat/host_folder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace cairn::vvfat {

HostFolder::HostFolder(std::string path)
    : path_(std::move(path)),
      fd_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK)) {
  if (!fd_)
    throw Error(kind_of(errno), "Could not read directory " + path_)
        .hint(path_ + ": " + Error::system(errno).cause() + ".");
  if (const OwnFd probe = open("", O_PATH, Links::kRefuse); !probe)
    throw Error::system(errno,
                        "a folder is shown as a disk only where the kernel has openat2 "
                        "(Linux 5.6)");
}

std::string HostFolder::full_path(const std::string& relative) const {
  if (relative.empty()) return path_;
  return path_.ends_with('/') ? path_ + relative : path_ + "/" + relative;
}

OwnFd HostFolder::open(const std::string& relative, int flags, Links links) const {
  open_how how = {};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  if (links == Links::kRefuse) how.resolve |= RESOLVE_NO_SYMLINKS;
  const char* name = relative.empty() ? "." : relative.c_str();
  while (true) {
    const long fd = ::syscall(SYS_openat2, fd_.get(), name, &how, sizeof how);
    // EAGAIN: something was renamed while a `..` was resolved.
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return OwnFd(static_cast<int>(fd));
  }
}

}  // namespace cairn::vvfat
