#pragma once

#include "block/capability.h"

namespace cairn {

// A node with a state that would be lost if it was opened again: blockdev-reopen refuses it.
class OpenedOnce {
 public:
  static constexpr CapabilityTag kCapability{"opened-once"};

 protected:
  ~OpenedOnce() = default;
};

}  // namespace cairn
