#pragma once

#include <set>
#include <string>
#include <vector>

#include "block/graph/graph.h"

namespace cairn {

// How a node of a graph was opened, so that Graph::open_again() opens the same, here or in another
// process.
struct NodeRecipe {
  std::string name;  // also one that was made, "#block123"
  Options options;   // of its own, and the names of its children; null: no such child
  OpenFlags flags;
  bool owned = false;  // GraphNode::owned
};

// Throws kUnsupported where a node of GRAPH would not be the same when it was opened again.
void check_recipes(Graph& graph);
// Those of all nodes that are not opened by others by themselves, children before their parents.
// Throws as check_recipes().
std::vector<NodeRecipe> node_recipes(Graph& graph);
// The same for the nodes in ONLY, whatever they are. Throws nothing.
std::vector<NodeRecipe> node_recipes(Graph& graph, const std::set<const Node*>& only);

}  // namespace cairn
