#pragma once

#include <fcntl.h>

#include <cstdint>
#include <cstdio>

namespace cairn::platform {

// What fcntl() takes for a lock of the kind TYPE on one byte.
inline struct flock lock_record(uint64_t byte, short type) {
  struct flock lock = {};
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  lock.l_type = type;
  return lock;
}

}  // namespace cairn::platform
