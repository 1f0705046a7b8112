#pragma once

#include "async/task.h"
#include "block/open.h"

namespace cairn {

// A temporary qcow2 overlay over BASE, which it closes when it is closed itself. Its file is made
// in Context::temporary_directory and has no name. Flushes of it do nothing. Throws kNoSpace and
// the like for the file.
Task<NodePtr> lay_over(Context& context, NodePtr base);

// Opens what REQUEST describes read-only, whatever its flags say, below a temporary qcow2 overlay
// that is writable: reads see the image, changes go to the overlay and vanish when the returned
// node is closed or the program ends in whatever way. Throws as open_node() and lay_over() do.
Task<NodePtr> open_with_snapshot_overlay(Context& context, OpenRequest request);

}  // namespace cairn
