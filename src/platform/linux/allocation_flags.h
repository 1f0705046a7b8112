#pragma once

#include <fcntl.h>

#include "platform/file.h"

namespace cairn::platform {

// How fallocate() and io_uring call WHAT.
inline int allocation_flags(Allocation what) {
  switch (what) {
    case Allocation::kPunch:
      return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    case Allocation::kZero:
      return FALLOC_FL_ZERO_RANGE;
    case Allocation::kReserve:
      break;
  }
  return 0;
}

}  // namespace cairn::platform
