#pragma once

#include <cstdint>
#include <string_view>

#include "block/capability.h"

namespace cairn {

// A node that uses children otherwise than others of its kind: in a running graph its uses exclude
// those of others, or not.
class ChildUse {
 public:
  static constexpr CapabilityTag kCapability{"child-use"};

  // What the node TAKES of the child called NAME and what it SHARES (Permissions::k…). On entry
  // what the users of the node itself take and share together. False: as others of its kind. From
  // any thread; nothing throws.
  virtual bool child_use(std::string_view name, uint8_t& takes, uint8_t& shares) const = 0;

 protected:
  ~ChildUse() = default;
};

}  // namespace cairn
