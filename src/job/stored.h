#pragma once

#include <vector>

#include "async/cancel.h"
#include "block/node.h"

namespace cairn {

struct StoredPart {
  Node* node = nullptr;      // null: nothing to look at
  bool whole_chain = false;  // the layers below as well
};

// Asks for the extents of the whole disk of all PARTS, and throws when some of their data is not in
// the file. Called before anything is changed that relies on that data. Does nothing under QEMU's
// names. Reports as "look-over".
Task<void> check_stored(std::vector<StoredPart> parts, const CancelSource& cancel);

// How many bytes from OFFSET on are lost with the one at which ERROR was met: the rest of its
// cluster, when the image is at fault. 0 where that is not known.
uint64_t lost_with(const Node& node, uint64_t offset, const Error& error);

}  // namespace cairn
