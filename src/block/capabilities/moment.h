#pragma once

#include "async/task.h"
#include "base/bytes.h"
#include "block/capability.h"
#include "block/extent.h"

namespace cairn {

// A node that keeps its disk readable as it was at one moment, whatever is written since.
class Moment {
 public:
  static constexpr CapabilityTag kCapability{"moment"};

  // The size of the disk of that moment, in bytes.
  virtual uint64_t moment_length() const = 0;
  // Reads the disk of that moment. Throws kInvalid where it is not part of it, or not kept any
  // more. From any worker, as the next two; ranges are inside the disk.
  virtual Task<void> read_moment(uint64_t offset, MutableByteSpan out) = 0;
  // What is at OFFSET, and for how many bytes, at most MAX. Throws as read_moment().
  virtual Task<Extent> moment_extent(uint64_t offset, uint64_t max) = 0;
  // Nobody reads the range of that moment again: what is kept of it is discarded.
  virtual Task<void> discard_moment(uint64_t offset, uint64_t length) = 0;
  // A node reads the moment from now on, or no longer.
  virtual void change_readers(int difference) = 0;

 protected:
  ~Moment() = default;
};

}  // namespace cairn
