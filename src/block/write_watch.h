#pragma once

#include <cstdint>

#include "async/task.h"

namespace cairn {

// Gets to know of every change of a node before it begins: DirtyBitmaps::set_watch(). From any
// worker, many requests at a time.
class WriteWatch {
 public:
  virtual ~WriteWatch() = default;
  // A request is to change the range, and begins when this has returned. Throws what the request
  // fails with; after() is not called then.
  virtual Task<void> before(uint64_t offset, uint64_t length) = 0;
  // The request has ended, whatever its outcome, and the dirty bitmaps are marked. Throws nothing.
  virtual void after(uint64_t offset, uint64_t length) = 0;
};

}  // namespace cairn
