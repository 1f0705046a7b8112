#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::platform {

// Locks of single bytes of an open file, as QEMU takes them: shared with others, until they are
// unlocked or the descriptor is closed. Of two descriptors of one process each has its own. Each
// call returns at once. EAGAIN or EACCES: another descriptor has it exclusively.
int lock_byte(int fd, uint64_t byte);
int unlock_byte(int fd, uint64_t byte);
// Whether no other descriptor has the byte locked; nothing is locked afterwards that was not
// before. 0: free, 1: locked, -1: errno.
int byte_is_locked(int fd, uint64_t byte);

// Who else has the file of FD open, as far as the system shows: kThisProcess, or "process NUMBER
// (NAME)"; empty: nobody.
inline constexpr std::string_view kThisProcess = "this process";
std::string other_user_of(int fd);

// The whole file, exclusively, until FD is closed. EAGAIN: another descriptor has it.
int lock_file(int fd);

}  // namespace cairn::platform
