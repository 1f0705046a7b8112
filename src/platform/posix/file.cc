#include "platform/file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "platform/posix/status.h"

namespace cairn::platform {
namespace {

FileType type_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return FileType::kRegular;
    case S_IFDIR:
      return FileType::kDirectory;
    case S_IFBLK:
      return FileType::kBlockDevice;
    case S_IFCHR:
      return FileType::kCharacterDevice;
    case S_IFSOCK:
      return FileType::kSocket;
    case S_IFIFO:
      return FileType::kPipe;
    case S_IFLNK:
      return FileType::kLink;
    default:
      return FileType::kOther;
  }
}

int count_of(std::span<const iovec> buffers) {
  return static_cast<int>(std::min(buffers.size(), kMostBuffers));
}

}  // namespace

FileStatus status_from(const struct stat& found) {
#ifdef __APPLE__
  const timespec& modified = found.st_mtimespec;
  const timespec& changed = found.st_ctimespec;
#else
  const timespec& modified = found.st_mtim;
  const timespec& changed = found.st_ctim;
#endif
  return {.type = type_of(found.st_mode),
          .size = static_cast<uint64_t>(found.st_size),
          .allocated = static_cast<uint64_t>(found.st_blocks) * 512,
          .volume = static_cast<uint64_t>(found.st_dev),
          .number = static_cast<uint64_t>(found.st_ino),
          .links = static_cast<uint64_t>(found.st_nlink),
          .special = static_cast<uint64_t>(found.st_rdev),
          .modified = modified.tv_sec,
          .modified_nanoseconds = static_cast<uint32_t>(modified.tv_nsec),
          .changed = changed.tv_sec,
          .write_protected = (found.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0};
}

std::optional<FileStatus> status(const std::string& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) return std::nullopt;
  return status_from(found);
}

std::optional<FileStatus> link_status(const std::string& path) {
  struct stat found = {};
  if (::lstat(path.c_str(), &found) != 0) return std::nullopt;
  return status_from(found);
}

std::optional<FileStatus> status_of(int fd) {
  struct stat found = {};
  if (::fstat(fd, &found) != 0) return std::nullopt;
  return status_from(found);
}

void set_blocking(int fd) { ::fcntl(fd, F_SETFL, 0); }

int close(int fd) { return ::close(fd); }

ssize_t read(int fd, void* bytes, size_t count) { return ::read(fd, bytes, count); }
ssize_t write(int fd, const void* bytes, size_t count) { return ::write(fd, bytes, count); }

ssize_t read_at(int fd, std::span<const iovec> buffers, uint64_t offset) {
  return ::preadv(fd, buffers.data(), count_of(buffers), static_cast<off_t>(offset));
}

ssize_t write_at(int fd, std::span<const iovec> buffers, uint64_t offset) {
  return ::pwritev(fd, buffers.data(), count_of(buffers), static_cast<off_t>(offset));
}

ssize_t read_at(int fd, void* bytes, size_t count, uint64_t offset) {
  return ::pread(fd, bytes, count, static_cast<off_t>(offset));
}

ssize_t write_at(int fd, const void* bytes, size_t count, uint64_t offset) {
  return ::pwrite(fd, bytes, count, static_cast<off_t>(offset));
}

const size_t kPipeBytes = PIPE_BUF;

int set_length(int fd, uint64_t length) { return ::ftruncate(fd, static_cast<off_t>(length)); }

int sync_directory(const std::string& path) {
  const int fd = platform::open(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return -1;
  const int failed = platform::sync(fd) != 0 ? errno : 0;
  ::close(fd);
  errno = failed;
  return failed == 0 ? 0 : -1;
}

std::optional<uint64_t> next_data(int fd, uint64_t offset) {
  const off_t found = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (found < 0) return std::nullopt;
  return static_cast<uint64_t>(found);
}

std::optional<uint64_t> next_hole(int fd, uint64_t offset) {
  const off_t found = ::lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
  if (found < 0) return std::nullopt;
  return static_cast<uint64_t>(found);
}

bool is_writable(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int remove(const std::string& path) { return ::unlink(path.c_str()); }

Abandoned remove_abandoned(const char* name, bool remove) noexcept {
  struct stat found = {};
  if (::lstat(name, &found) != 0) return Abandoned::kMissing;
  return remove && S_ISREG(found.st_mode) && ::unlink(name) == 0 ? Abandoned::kRemoved
                                                                 : Abandoned::kStays;
}

int rename(const std::string& from, const std::string& to) {
  return ::rename(from.c_str(), to.c_str());
}

std::string canonical(const std::string& path) {
  char* const found = ::realpath(path.c_str(), nullptr);
  if (found == nullptr) return {};
  std::string result(found);
  ::free(found);
  return result;
}

bool may_read(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

}  // namespace cairn::platform
