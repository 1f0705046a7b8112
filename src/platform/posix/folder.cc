#include "platform/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string_view>

#include "platform/posix/status.h"

namespace cairn::platform {
namespace {

const timespec kSame{.tv_sec = 0, .tv_nsec = UTIME_OMIT};

}  // namespace

int open_folder(const std::string& path) {
  return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
}

int open_in(int folder, const std::string& name, int flags, unsigned mode) {
  return ::openat(folder, name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

std::optional<FileStatus> status_in(int folder, const std::string& name) {
  struct stat found = {};
  if (::fstatat(folder, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return status_from(found);
}

std::optional<std::vector<std::string>> names_in(int folder, size_t most) {
  // With a place of its own, where others list it too.
  const int fd = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fd < 0 ? nullptr : ::fdopendir(fd), ::closedir);
  if (!stream) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    errno = error;
    return std::nullopt;
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* found = ::readdir(stream.get())) {
    const std::string_view name = found->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    if (names.size() > most) return names;
    errno = 0;
  }
  if (errno != 0) return std::nullopt;
  return names;
}

int make_directory_in(int folder, const std::string& name, unsigned mode) {
  return ::mkdirat(folder, name.c_str(), static_cast<mode_t>(mode));
}

int remove_in(int folder, const std::string& name) { return ::unlinkat(folder, name.c_str(), 0); }

int remove_directory_in(int folder, const std::string& name) {
  return ::unlinkat(folder, name.c_str(), AT_REMOVEDIR);
}

int set_modified_in(int folder, const std::string& name, int64_t seconds) {
  const timespec times[2] = {kSame, {.tv_sec = seconds, .tv_nsec = 0}};
  return ::utimensat(folder, name.c_str(), times, AT_SYMLINK_NOFOLLOW);
}

int set_modified(int fd, int64_t seconds) {
  const timespec times[2] = {kSame, {.tv_sec = seconds, .tv_nsec = 0}};
  return ::futimens(fd, times);
}

int copy_rights(int folder, const std::string& name, int fd) {
  struct stat found = {};
  if (::fstatat(folder, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) return -1;
  // Only the administrator may give files away; who may not owns both.
  if (::fchown(fd, found.st_uid, found.st_gid) != 0 && errno != EPERM) return -1;
  // No set-user-ID: what is written now runs with no rights but those of the user who runs it.
  return ::fchmod(fd, found.st_mode & 0777);
}

int lock_folder(int folder, Sharing sharing) {
  return ::flock(folder, (sharing == Sharing::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB);
}

std::optional<Rights> rights_of(int fd) {
  struct stat found = {};
  if (::fstat(fd, &found) != 0) return std::nullopt;
  if (found.st_uid != ::geteuid()) return Rights::kOfOthers;
  return (found.st_mode & (S_IWGRP | S_IWOTH)) != 0 ? Rights::kOwnButOthersWrite : Rights::kOwn;
}

const bool kSyncsVolumes = true;

}  // namespace cairn::platform
