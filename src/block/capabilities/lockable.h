#pragma once

#include "async/task.h"
#include "block/capability.h"
#include "block/permissions.h"

namespace cairn {

class Node;

// Storage that other programs see the locks of.
class Lockable {
 public:
  static constexpr CapabilityTag kCapability{"lockable"};

  // Replaces the locks on the node's storage: what is new is taken before what is given up. Throws
  // kBusy that says who holds a lock; the locks are then as they were. From any worker, one call
  // at a time.
  virtual Task<void> set_permissions(Permissions permissions) = 0;

 protected:
  ~Lockable() = default;
};

// Does nothing where NODE has no locks.
Task<void> set_permissions(Node& node, Permissions permissions);

}  // namespace cairn
