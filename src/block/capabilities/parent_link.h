#pragma once

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// An image that names its parent by an identifier in addition to the path.
class ParentLink {
 public:
  static constexpr CapabilityTag kCapability{"parent-link"};

  // PARENT, null for none, is about to become the parent: what the guest sees is kept by writing
  // what differs. Throws, before anything is written, when the image cannot have it. Otherwise the
  // next change_backing() stores its identifier; without this call it leaves identifiers alone.
  // From any worker; no request may be under way.
  virtual Task<void> adopt_parent(Node* parent) = 0;

 protected:
  ~ParentLink() = default;
};

}  // namespace cairn
