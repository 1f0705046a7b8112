#include "platform/lock.h"

#include <cerrno>

#include "platform/folder.h"
#include "platform/windows/descriptors.h"
#include "platform/windows/opening.h"

namespace cairn::platform {
namespace {

// Locks of Windows keep others, and for shared ones everybody, from writing to the bytes: so they
// are far past the end of every file, as far apart as those of QEMU.
constexpr uint64_t kBase = uint64_t{1} << 62;
constexpr uint64_t kWholeFile = 1000;
constexpr DWORD kAtOnce = LOCKFILE_FAIL_IMMEDIATELY;

int take(int fd, uint64_t byte, DWORD flags) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  // Consoles, ports and NUL have none.
  if (::GetFileType(handle) == FILE_TYPE_CHAR) return fail_as(EOPNOTSUPP);
  OVERLAPPED place = place_of(kBase + byte);
  if (::LockFileEx(handle, flags, 0, 1, 0, &place) != 0) return 0;
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
  if (take(fd, byte, kAtOnce) != 0) return -1;
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
  const bool free = take(fd, byte, kAtOnce | LOCKFILE_EXCLUSIVE_LOCK) == 0;
  const int error = errno;
  if (free) release(fd, byte);
  if (own && take(fd, byte, kAtOnce) != 0) return -1;
  if (free) return 0;
  errno = error;
  return error == EAGAIN ? 1 : -1;
}

std::string other_user_of(int) { return {}; }

int lock_file(int fd) { return take(fd, kWholeFile, kAtOnce | LOCKFILE_EXCLUSIVE_LOCK); }

int lock_file_shared(int fd) { return take(fd, kWholeFile, 0); }

// Directories have no bytes to be locked. In their place the directory is opened once more:
// exclusively as somebody who may delete it and lets nobody else do so, shared as somebody who lets
// nobody delete it. Both keep it from being moved.
int lock_folder(int folder, Sharing sharing) {
  Descriptor* const place = find_descriptor(folder);
  if (place == nullptr) return -1;
  release_lock(*place);
  const bool shared = sharing == Sharing::kShared;
  const HANDLE handle = open_relative(
      handle_of(folder), L"",
      {.access = ACCESS_MASK{FILE_LIST_DIRECTORY} | (shared ? 0u : ACCESS_MASK{DELETE}),
       .sharing = FILE_SHARE_READ | FILE_SHARE_WRITE,
       .options = FILE_DIRECTORY_FILE});
  if (handle == INVALID_HANDLE_VALUE) {
    if (errno == EBUSY) errno = EAGAIN;
    return -1;
  }
  place->lock = reinterpret_cast<uintptr_t>(handle);
  return 0;
}

}  // namespace cairn::platform
