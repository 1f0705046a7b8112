#pragma once

#include <string>
#include <string_view>

#include "block/capability.h"

namespace cairn {

// A node over several disks of the same content, of which some may come and go.
class DiskSet {
 public:
  static constexpr CapabilityTag kCapability{"disk-set"};

  // The name of the child that comes next; no child had it before. Throws where there is no room.
  virtual std::string next_disk() = 0;
  // Throws where one fewer would not do.
  virtual void check_fewer() const = 0;
  // The node has other children than before. Between requests.
  virtual void disks_changed() = 0;

 protected:
  ~DiskSet() = default;
};

}  // namespace cairn
