#pragma once

#include "block/capability.h"

namespace cairn {

// A node that lets requests wait on purpose.
class Delaying {
 public:
  static constexpr CapabilityTag kCapability{"delaying"};

  // With ON nothing waits any more, neither what came before nor what comes until the call without
  // it. Calls nest. From any thread.
  virtual void hurry(bool on) = 0;

 protected:
  ~Delaying() = default;
};

}  // namespace cairn
