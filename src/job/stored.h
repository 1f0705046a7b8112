#pragma once

#include "async/cancel.h"
#include "block/node.h"

namespace cairn {

// Asks for the extents of all of the disk, of the layers below as well where WHOLE_CHAIN is set:
// throws when some of its data is not in the file. Called before anything is changed that relies on
// that data. Under QEMU's names it does nothing. NODE may be null.
Task<void> check_stored(Node* node, bool whole_chain, const CancelSource& cancel);

// How many bytes from OFFSET on are lost with the one at which ERROR was met: the rest of its
// cluster, when the image is at fault. 0 where that is not known.
uint64_t lost_with(const Node& node, uint64_t offset, const Error& error);

}  // namespace cairn
