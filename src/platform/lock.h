#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::platform {

// Whose a lock is. Locks of the process go with any descriptor of the file, and its other users in
// the same process do not see them.
enum class LockOwner { kOpenFile, kProcess };

// Locks of single bytes of an open file, as QEMU takes them: shared with others, until they are
// unlocked or the descriptor is closed. Each call returns at once. EAGAIN or EACCES: somebody else
// has it exclusively; EINVAL, ENOSYS or EOPNOTSUPP: the file system or the system has no such
// locks.
int lock_byte(int fd, uint64_t byte, LockOwner owner);
int unlock_byte(int fd, uint64_t byte, LockOwner owner);
// Whether somebody else has the byte locked. 0: free, 1: locked, -1: errno.
int byte_is_locked(int fd, uint64_t byte, LockOwner owner);

// Who else has the file of FD open, as far as the system shows: kThisProcess, or "process NUMBER
// (NAME)"; empty: nobody.
inline constexpr std::string_view kThisProcess = "this process";
std::string other_user_of(int fd);

// The whole file, exclusively, until FD is closed. EAGAIN: another descriptor has it.
int lock_file(int fd);
// The same with others who do so. Waits for who has it exclusively.
int lock_file_shared(int fd);
// The same for the process: until it ends, or closes any descriptor of the file, where the system
// has such locks.
int lock_for_process(int fd);

}  // namespace cairn::platform
