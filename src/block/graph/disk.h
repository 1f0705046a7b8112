#pragma once

#include <cstdint>
#include <string>

#include "base/value.h"
#include "block/graph/graph.h"

// What commands change of one node of a graph. All throw in QEMU's words.
namespace cairn {

// Users that rely on the size, such as exports, keep it from being changed.
Task<void> resize_node(Graph& graph, std::string node, int64_t size);

// Changes the name of the backing file that the image of IMAGE stores, which is the node DEVICE or
// below it, and nothing else.
Task<void> change_backing_name(Graph& graph, std::string device, std::string image,
                               std::string backing);

// Adds NODE to the disks of the quorum PARENT, or takes CHILD from them; one of the two is empty.
Task<void> change_disks(Graph& graph, std::string parent, std::string child, std::string node);

// The nodes, and who uses what, as x-debug-query-block-graph has them.
Value describe_graph(const Graph& graph);

}  // namespace cairn
