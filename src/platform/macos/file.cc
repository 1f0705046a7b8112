#include "platform/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "platform/macos/disks.h"

namespace cairn::platform {
namespace {

int refuse(int error) {
  errno = error;
  return -1;
}

bool is_unknown(int error) { return error == ENOTSUP || error == EINVAL || error == ENOTTY; }

uint64_t bytes_of(uint64_t blocks, uint64_t block_bytes) {
  uint64_t bytes = 0;
  return __builtin_mul_overflow(blocks, block_bytes, &bytes) ? UINT64_MAX : bytes;
}

int write_zeroes(int fd, uint64_t offset, uint64_t length) {
  static constexpr std::array<char, 65536> kZeroes = {};
  while (length > 0) {
    const ssize_t put =
        write_at(fd, kZeroes.data(), std::min<uint64_t>(length, kZeroes.size()), offset);
    if (put < 0 && errno != EINTR) return -1;
    if (put <= 0) continue;
    offset += static_cast<uint64_t>(put);
    length -= static_cast<uint64_t>(put);
  }
  return 0;
}

// Only whole blocks of the file system can be holes: the rest is written. Nothing is
// done past the end.
int punch(int fd, uint64_t offset, uint64_t length) {
  struct statfs volume = {};
  const auto found = status_of(fd);
  if (!found || ::fstatfs(fd, &volume) != 0) return -1;
  if (!found->is_regular() || volume.f_bsize == 0) return refuse(EOPNOTSUPP);
  if (offset >= found->size) return 0;
  length = std::min(length, found->size - offset);
  const WholeUnits inner = whole_units(offset, length, volume.f_bsize);
  if (inner.length == 0) return write_zeroes(fd, offset, length);
  fpunchhole_t hole = {};
  hole.fp_offset = static_cast<off_t>(inner.offset);
  hole.fp_length = static_cast<off_t>(inner.length);
  if (::fcntl(fd, F_PUNCHHOLE, &hole) != 0) return is_unknown(errno) ? refuse(EOPNOTSUPP) : -1;
  if (write_zeroes(fd, offset, inner.offset - offset) != 0) return -1;
  const uint64_t end = inner.offset + inner.length;
  return write_zeroes(fd, end, offset + length - end);
}

// The system reserves past the end of a file and nowhere else; then the file is made longer.
int reserve_past_end(int fd, uint64_t size, uint64_t end) {
  fstore_t room = {};
  room.fst_posmode = F_PEOFPOSMODE;
  room.fst_length = static_cast<off_t>(end - size);
  room.fst_flags = F_ALLOCATECONTIG | F_ALLOCATEALL;
  if (::fcntl(fd, F_PREALLOCATE, &room) != 0) {
    room.fst_flags = F_ALLOCATEALL;
    if (::fcntl(fd, F_PREALLOCATE, &room) != 0) return is_unknown(errno) ? refuse(EOPNOTSUPP) : -1;
  }
  return set_length(fd, end);
}

}  // namespace

// Like that of other systems for O_DIRECT, which this one has as a property of what is open.
int open(const std::string& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), (flags & ~O_DIRECT) | O_CLOEXEC, mode);
  if (fd >= 0 && (flags & O_DIRECT) != 0) ::fcntl(fd, F_NOCACHE, 1);
  return fd;
}

std::optional<uint64_t> end_of(int fd) {
  // The end of a disk is not found by seeking.
  if (const auto bytes = disk_bytes(fd)) return bytes;
  const off_t end = ::lseek(fd, 0, SEEK_END);
  if (end < 0) return std::nullopt;
  return static_cast<uint64_t>(end);
}

ssize_t read_cached_at(int, std::span<const iovec>, uint64_t) { return refuse(EOPNOTSUPP); }

// fsync alone leaves the data in the cache of the drive; servers' file systems know no more.
int sync(int fd) {
  if (::fcntl(fd, F_FULLFSYNC) == 0) return 0;
  return is_unknown(errno) ? ::fsync(fd) : -1;
}

int sync_data(int fd) { return sync(fd); }

int allocate(int fd, Allocation what, uint64_t offset, uint64_t length) {
  uint64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end) || end > INT64_MAX) return refuse(EFBIG);
  if (what == Allocation::kPunch) return punch(fd, offset, length);
  const auto size = end_of(fd);
  if (!size) return -1;
  if (what == Allocation::kZero || offset < *size) return refuse(EOPNOTSUPP);
  return reserve_past_end(fd, *size, end);
}

int reserve(int fd, uint64_t offset, uint64_t length) {
  if (allocate(fd, Allocation::kReserve, offset, length) == 0) return 0;
  if (errno != EOPNOTSUPP) return errno;
  const auto size = end_of(fd);
  if (!size) return errno;
  // What is inside keeps its bytes, and gets room by being written again.
  std::array<char, 65536> bytes;
  for (uint64_t at = offset; at < std::min(offset + length, *size);) {
    const size_t part = std::min<uint64_t>(bytes.size(), std::min(offset + length, *size) - at);
    const ssize_t got = read_at(fd, bytes.data(), part, at);
    if (got < 0) return errno;
    if (got == 0) break;
    if (write_at(fd, bytes.data(), static_cast<size_t>(got), at) != got)
      return errno == 0 ? ENOSPC : errno;
    at += static_cast<uint64_t>(got);
  }
  const uint64_t from = std::max(offset, *size);
  return offset + length > from && write_zeroes(fd, from, offset + length - from) != 0 ? errno : 0;
}

ssize_t copy_range(int, uint64_t, int, uint64_t, uint64_t) { return refuse(EOPNOTSUPP); }

bool lives_in_memory(int fd) {
  struct statfs found = {};
  return ::fstatfs(fd, &found) == 0 && ::strcmp(found.f_fstypename, "tmpfs") == 0;
}

std::optional<uint64_t> free_bytes(int fd) {
  struct statfs found = {};
  if (::fstatfs(fd, &found) != 0 || found.f_blocks == 0 || found.f_bsize == 0) return std::nullopt;
  return bytes_of(found.f_bfree, found.f_bsize);
}

std::optional<uint64_t> bytes_for_user(const std::string& directory) {
  struct statfs found = {};
  if (::statfs(directory.c_str(), &found) != 0) return std::nullopt;
  return bytes_of(found.f_bavail, found.f_bsize);
}

// By its path, which another file may have meanwhile.
int reopen_for_writing(int fd) {
  char path[MAXPATHLEN] = "";
  if (::fcntl(fd, F_GETPATH, path) != 0) return -1;
  const int again = platform::open(path, O_WRONLY);
  const auto one = status_of(fd);
  const auto other = status_of(again);
  if (again < 0 || (one && other && one->same_file(*other))) return again;
  ::close(again);
  return refuse(ENOENT);
}

// A descriptor below /dev/fd shares its properties with the first one.
int reopen_unblocked(int) { return refuse(EOPNOTSUPP); }

std::string shown_path(std::string path) { return path; }

}  // namespace cairn::platform
