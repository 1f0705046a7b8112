#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>

namespace cairn::platform {

// Fills BYTES with what nobody can foresee. False, with errno.
bool random_bytes(void* bytes, size_t count);

// The words of POSIX systems for an error number.
std::string error_text(int error);

// Nanoseconds of processor time of the calling thread; of nothing else where the clock is coarse.
uint64_t thread_cpu_nanoseconds();
// The steady clock, cheaply, where a resolution of some milliseconds does.
std::chrono::steady_clock::time_point coarse_now();
bool to_utc(std::time_t seconds, std::tm* parts);
bool to_local(std::time_t seconds, std::tm* parts);

// The payload of the key SERIAL in the kernel's keyring; its length, of which at most COUNT bytes
// are in BYTES. -1: errno.
long read_kernel_key(long serial, void* bytes, size_t count);

unsigned long process_number();
bool is_terminal(int fd);
// The width of the terminal FD; nothing where it is none.
std::optional<unsigned> terminal_columns(int fd);

// Whether NAME matches the shell pattern PATTERN (*, ?, [...]).
bool matches_pattern(const std::string& pattern, const std::string& name);

// The capital letter of UNIT, of Unicode's first plane; UNIT where it has none there.
char16_t upper_case(char16_t unit);

}  // namespace cairn::platform
