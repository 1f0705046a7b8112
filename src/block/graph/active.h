#pragma once

#include <string>

#include "block/graph/graph.h"

namespace cairn {

// An inactive node is written by nobody and holds no locks, so that another process may have the
// image; an active one sees what that wrote. The nodes that are below such nodes alone follow.
// NODE empty: all nodes that nothing is above. Throws in QEMU's words where a user needs the node.
Task<void> set_active(Graph& graph, std::string node, bool active);

}  // namespace cairn
