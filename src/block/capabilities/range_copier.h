#pragma once

#include <cstdint>

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// A node that can let the kernel or a server copy. Node::copy_range_from() uses it, after its
// checks and with its dirty marks.
class RangeCopier {
 public:
  static constexpr CapabilityTag kCapability{"range-copier"};

  // Copies SOURCE's range to OFFSET; both ranges are inside of their nodes. False when that is not
  // possible, and nothing was written; a failure leaves the range undefined, nothing else. From
  // any worker.
  virtual Task<bool> copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                                uint64_t length) = 0;

 protected:
  ~RangeCopier() = default;
};

}  // namespace cairn
