#pragma once

#include <cstdint>
#include <optional>

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// A node that knows the space it takes better than by adding up its children.
class StorageUse {
 public:
  static constexpr CapabilityTag kCapability{"storage-use"};

  // Bytes that the node takes on its host, without the backing chain; nothing when unknown. From
  // any worker; nothing is changed.
  virtual Task<std::optional<uint64_t>> allocated_bytes() = 0;

 protected:
  ~StorageUse() = default;
};

// The same of any NODE: without the capability the sum of its children but the backing file.
Task<std::optional<uint64_t>> allocated_bytes_of(Node& node);

}  // namespace cairn
