#include "platform/file.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "platform/linux/allocation_flags.h"

namespace cairn::platform {
namespace {

uint64_t bytes_of(uint64_t blocks, uint64_t block_bytes) {
  uint64_t bytes = 0;
  return __builtin_mul_overflow(blocks, block_bytes, &bytes) ? UINT64_MAX : bytes;
}

}  // namespace

int open(const std::string& path, int flags, unsigned mode) {
  return ::open(path.c_str(), flags | O_CLOEXEC, mode);
}

std::optional<uint64_t> end_of(int fd) {
  const off_t end = ::lseek(fd, 0, SEEK_END);
  if (end < 0) return std::nullopt;
  return static_cast<uint64_t>(end);
}

ssize_t read_cached_at(int fd, std::span<const iovec> buffers, uint64_t offset) {
  return ::preadv2(fd, buffers.data(), static_cast<int>(std::min(buffers.size(), kMostBuffers)),
                   static_cast<off_t>(offset), RWF_NOWAIT);
}

int sync(int fd) { return ::fsync(fd); }
int sync_data(int fd) { return ::fdatasync(fd); }

int allocate(int fd, Allocation what, uint64_t offset, uint64_t length) {
  return ::fallocate(fd, allocation_flags(what), static_cast<off_t>(offset),
                     static_cast<off_t>(length));
}

int reserve(int fd, uint64_t offset, uint64_t length) {
  return ::posix_fallocate(fd, static_cast<off_t>(offset), static_cast<off_t>(length));
}

ssize_t copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length) {
  auto in = static_cast<off_t>(from_offset);
  auto out = static_cast<off_t>(to_offset);
  return ::copy_file_range(from, &in, to, &out, length, 0);
}

bool lives_in_memory(int fd) {
  constexpr long kRamfs = 0x858458f6;
  struct statfs found = {};
  return ::fstatfs(fd, &found) == 0 &&
         (found.f_type == TMPFS_MAGIC || found.f_type == kRamfs || found.f_type == HUGETLBFS_MAGIC);
}

std::optional<uint64_t> free_bytes(int fd) {
  struct statvfs found = {};
  if (::fstatvfs(fd, &found) != 0 || found.f_blocks == 0 || found.f_frsize == 0)
    return std::nullopt;
  return bytes_of(found.f_bfree, found.f_frsize);
}

std::optional<uint64_t> bytes_for_user(const std::string& directory) {
  struct statvfs found = {};
  if (::statvfs(directory.c_str(), &found) != 0) return std::nullopt;
  return bytes_of(found.f_bavail, found.f_frsize);
}

int reopen_for_writing(int fd) {
  return platform::open("/proc/self/fd/" + std::to_string(fd), O_WRONLY);
}

int reopen_unblocked(int fd) {
  return platform::open("/proc/self/fd/" + std::to_string(fd), O_WRONLY | O_NONBLOCK);
}

std::string shown_path(std::string path) {
  if (!path.starts_with("/proc/self/fd/")) return path;
  char real[PATH_MAX];
  const ssize_t length = ::readlink(path.c_str(), real, sizeof real);
  const std::string_view target(real, length < 0 ? 0 : static_cast<size_t>(length));
  if (!target.ends_with(" (deleted)")) return path;
  return "the temporary file in '" + std::string(target.substr(0, target.rfind('/'))) + "'";
}

}  // namespace cairn::platform
