#pragma once

#include <cstdint>

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// A node that can bring data nearer without handing it over. Node::prefetch() uses it, and reads
// where there is none.
class Prefetcher {
 public:
  static constexpr CapabilityTag kCapability{"prefetcher"};

  // The range, inside of the node, will be read soon. Throws as reading; nothing is changed. From
  // any worker.
  virtual Task<void> prefetch_range(uint64_t offset, uint64_t length) = 0;

 protected:
  ~Prefetcher() = default;
};

// Fills what caches NODE and those below it have by reading the range.
Task<void> prefetch_by_reading(Node& node, uint64_t offset, uint64_t length);

}  // namespace cairn
