#pragma once

#include "async/task.h"
#include "block/open.h"

namespace cairn {

// Opens what REQUEST describes read-only, whatever its flags say, below a temporary qcow2 overlay
// that is writable: reads see the image, changes go to the overlay and vanish when the returned
// node is closed or the program ends in whatever way. The overlay's file has no name; it lies in
// $TMPDIR, or in /var/tmp where that is not set or is /tmp (which often is memory). Flushes of the
// overlay do nothing. Throws as open_node() does, kNoSpace and the like for the temporary file.
Task<NodePtr> open_with_snapshot_overlay(Context& context, OpenRequest request);

}  // namespace cairn
