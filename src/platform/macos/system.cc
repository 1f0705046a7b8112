#include "platform/system.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace cairn::platform {

bool random_bytes(void* bytes, size_t count) {
  constexpr size_t kMost = 256;  // that one call gives
  for (size_t have = 0; have < count; have += std::min(kMost, count - have))
    if (::getentropy(static_cast<char*>(bytes) + have, std::min(kMost, count - have)) != 0)
      return false;
  return true;
}

// There are no keyrings.
long read_kernel_key(long, void*, size_t) {
  errno = ENOSYS;
  return -1;
}

std::chrono::steady_clock::time_point coarse_now() { return std::chrono::steady_clock::now(); }

}  // namespace cairn::platform
