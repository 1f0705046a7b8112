#include "platform/lock.h"

#include <cerrno>

#include "platform/windows/descriptors.h"

namespace cairn::platform {
namespace {

// Locks of Windows keep others, and for shared ones everybody, from writing to the bytes: so they
// are far past the end of every file, as far apart as those of QEMU.
constexpr uint64_t kBase = uint64_t{1} << 62;
constexpr uint64_t kWholeFile = 1000;

int take(int fd, uint64_t byte, DWORD flags) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  OVERLAPPED place = place_of(kBase + byte);
  if (::LockFileEx(handle, LOCKFILE_FAIL_IMMEDIATELY | flags, 0, 1, 0, &place) != 0) return 0;
  const DWORD error = ::GetLastError();
  return error == ERROR_IO_PENDING ? fail_as(EAGAIN) : fail(error);
}

void release(int fd, uint64_t byte) {
  OVERLAPPED place = place_of(kBase + byte);
  ::UnlockFileEx(handle_of(fd), 0, 1, 0, &place);
}

uint64_t mark_of(uint64_t byte) { return uint64_t{1} << byte % 64; }

}  // namespace

int lock_byte(int fd, uint64_t byte, LockOwner) {
  if (take(fd, byte, 0) != 0) return -1;
  find_descriptor(fd)->locked.fetch_or(mark_of(byte));
  return 0;
}

int unlock_byte(int fd, uint64_t byte, LockOwner) {
  Descriptor* const file = find_descriptor(fd);
  if (file == nullptr) return -1;
  if ((file->locked.fetch_and(~mark_of(byte)) & mark_of(byte)) != 0) release(fd, byte);
  return 0;
}

// There is no question without a lock: it is taken for a moment. A lock of our own would be in the
// way, and is taken again. Somebody who asks at the same time may see it; ImageLocks tries again.
int byte_is_locked(int fd, uint64_t byte, LockOwner) {
  const Descriptor* const file = find_descriptor(fd);
  if (file == nullptr) return -1;
  const bool own = (file->locked & mark_of(byte)) != 0;
  if (own) release(fd, byte);
  const bool free = take(fd, byte, LOCKFILE_EXCLUSIVE_LOCK) == 0;
  const int error = errno;
  if (free) release(fd, byte);
  if (own && take(fd, byte, 0) != 0) return -1;
  if (free) return 0;
  errno = error;
  return error == EAGAIN ? 1 : -1;
}

std::string other_user_of(int) { return {}; }

int lock_file(int fd) { return take(fd, kWholeFile, LOCKFILE_EXCLUSIVE_LOCK); }

}  // namespace cairn::platform
