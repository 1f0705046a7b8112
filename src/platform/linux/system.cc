#include "platform/system.h"

#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace cairn::platform {

bool random_bytes(void* bytes, size_t count) {
  size_t have = 0;
  while (have < count) {
    const ssize_t got = ::getrandom(static_cast<char*>(bytes) + have, count - have, 0);
    if (got < 0 && errno != EINTR) return false;
    if (got > 0) have += static_cast<size_t>(got);
  }
  return true;
}

long read_kernel_key(long serial, void* bytes, size_t count) {
  constexpr long kKeyctlRead = 11;
  return ::syscall(SYS_keyctl, kKeyctlRead, serial, bytes, count);
}

std::chrono::steady_clock::time_point coarse_now() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return std::chrono::steady_clock::time_point(std::chrono::seconds(now.tv_sec) +
                                               std::chrono::nanoseconds(now.tv_nsec));
}

}  // namespace cairn::platform
