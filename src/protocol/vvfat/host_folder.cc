#include "protocol/vvfat/host_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/error.h"

namespace cairn::vvfat {

HostFolder::HostFolder(std::string path)
    : path_(std::move(path)),
      fd_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK)) {
  if (!fd_)
    throw Error(kind_of(errno), "Could not read directory " + path_)
        .hint(fmt::format("{}: {}.", path_, Error::system(errno).cause()));
  if (const OwnFd probe = open("", O_PATH, Links::kRefuse); !probe)
    throw Error::system(errno,
                        "a directory is shown as a disk only where the kernel has openat2 "
                        "(Linux 5.6)");
}

std::string HostFolder::full_path(const std::string& relative) const {
  if (relative.empty()) return path_;
  return path_.ends_with('/') ? path_ + relative : path_ + "/" + relative;
}

OwnFd HostFolder::open(const std::string& relative, int flags, Links links, unsigned mode) const {
  open_how how = {};
  how.mode = mode;
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

void HostFolder::lock() const {
  // Where directories cannot be locked no other process can be kept out.
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw Error(ErrorKind::kLocked, path_ + " is shown as a disk that can be written already");
}

std::pair<OwnFd, std::string> HostFolder::place_of(const std::string& relative) const {
  const size_t slash = relative.rfind('/');
  const bool deep = slash != std::string::npos;
  OwnFd above = open(deep ? relative.substr(0, slash) : "", O_PATH | O_DIRECTORY, Links::kRefuse);
  if (!above) throw Error::system(errno, full_path(relative));
  return {std::move(above), deep ? relative.substr(slash + 1) : relative};
}

void HostFolder::make_folder(const std::string& relative, unsigned mode) const {
  const auto [above, name] = place_of(relative);
  if (::mkdirat(above.get(), name.c_str(), mode) != 0)
    throw Error::system(errno, "Could not create the directory " + full_path(relative));
}

void HostFolder::move(const std::string& from, const std::string& to) const {
  const auto [old_above, old_name] = place_of(from);
  const auto [above, name] = place_of(to);
  int error = ::renameat2(old_above.get(), old_name.c_str(), above.get(), name.c_str(),
                          RENAME_NOREPLACE) == 0
                  ? 0
                  : errno;
  // NFS cannot ask and move in one step.
  if (error == EINVAL || error == ENOSYS) {
    struct stat there = {};
    error = ::fstatat(above.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 ? EEXIST : 0;
    if (error == 0 && ::renameat(old_above.get(), old_name.c_str(), above.get(), name.c_str()) != 0)
      error = errno;
  }
  if (error != 0)
    throw Error::system(error,
                        fmt::format("Could not move {} to {}", full_path(from), full_path(to)));
}

bool HostFolder::look_at(const std::string& relative, struct stat& status) const {
  const OwnFd found = open(relative, O_PATH | O_NOFOLLOW, Links::kRefuse);
  if (!found && (errno == ENOENT || errno == ENOTDIR)) return false;
  if (!found || ::fstat(found.get(), &status) != 0) throw Error::system(errno, full_path(relative));
  return true;
}

std::vector<std::string> HostFolder::names_in(const std::string& relative, Links links,
                                              size_t most) const {
  OwnFd fd = open(relative, O_RDONLY | O_DIRECTORY | O_NONBLOCK, links);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fd ? ::fdopendir(fd.get()) : nullptr,
                                                   ::closedir);
  const std::string what = "Could not read directory " + full_path(relative);
  if (!stream)
    throw Error(kind_of(errno), what)
        .hint("The system says: " + Error::system(errno).cause() + ".");
  fd.release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* found = ::readdir(stream.get())) {
    const std::string_view name = found->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    if (names.size() > most)
      throw Error(ErrorKind::kTooLarge, what)
          .hint(fmt::format("It holds more than {} files.", most));
    errno = 0;
  }
  if (errno != 0) throw Error::system(errno, what);
  return names;
}

void HostFolder::remove(const std::string& relative) const {
  const auto [above, name] = place_of(relative);
  if (::unlinkat(above.get(), name.c_str(), 0) == 0 || errno == ENOENT) return;
  if (errno != EISDIR && errno != EPERM)
    throw Error::system(errno, "Could not remove " + full_path(relative));
  for (const std::string& inner : names_in(relative, Links::kRefuse, SIZE_MAX))
    remove(relative + "/" + inner);
  if (::unlinkat(above.get(), name.c_str(), AT_REMOVEDIR) != 0)
    throw Error::system(errno, "Could not remove " + full_path(relative));
}

void HostFolder::set_written(const std::string& relative, int64_t seconds) const {
  const auto [above, name] = place_of(relative);
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                             {.tv_sec = seconds, .tv_nsec = 0}};
  if (::utimensat(above.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
    throw Error::system(errno, "Could not set the time of " + full_path(relative));
}

void HostFolder::flush() const {
  if (::syncfs(fd_.get()) != 0) throw Error::system(errno, path_);
}

}  // namespace cairn::vvfat
