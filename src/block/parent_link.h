#pragma once

#include "async/task.h"
#include "block/node.h"

namespace cairn {

// An image that names its parent by an identifier beside the path.
class ParentLink {
 public:
  virtual ~ParentLink() = default;
  // PARENT, null for none, is about to become the parent: what the guest sees is kept by writing
  // what differs. Throws, before anything is written, when the image cannot have it. Otherwise the
  // next change_backing() stores its identifier; without this call it leaves identifiers alone.
  virtual Task<void> adopt_parent(Node* parent) = 0;
};

}  // namespace cairn
