#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "block/graph/root.h"
#include "block/node.h"

namespace cairn {

// One use of a node: by a node above it, or by a user outside of the graph.
struct GraphEdge {
  const Node* parent = nullptr;  // one of the two is set
  const Root* root = nullptr;
  Node* child = nullptr;
  std::string_view role = {};  // the name of the child, or the role of the root
  uint8_t takes = 0;           // Permissions::k…
  uint8_t shares = Permissions::kAll;
};

// All uses among NODES and by ROOTS, those of a node after those of the nodes above it. What a node
// does with its children follows from what it is, and from what is done with it.
std::vector<GraphEdge> graph_edges(const std::vector<NodePtr>& nodes,
                                   const std::vector<RootPtr>& roots);
// What all EDGES to NODE take together, and what one of them does not share.
Permissions permissions_of(const Node& node, const std::vector<GraphEdge>& edges);
// Throws the first conflict: two uses of one node that exclude each other, or a writer of a node
// that is read-only.
void check_edges(const std::vector<GraphEdge>& edges);

}  // namespace cairn
