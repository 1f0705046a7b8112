#include "block/graph/edges.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "block/capabilities/child_use.h"
#include "block/driver.h"

namespace cairn {
namespace {

constexpr uint8_t kRead = Permissions::kConsistentRead;
constexpr uint8_t kWrite = Permissions::kWrite;
constexpr uint8_t kUnchanged = Permissions::kWriteUnchanged;
constexpr uint8_t kResize = Permissions::kResize;

struct Held {
  uint8_t takes = 0;
  uint8_t shares = Permissions::kAll;
};

// An overlay reads what it has not. Others may write there only where all users of the overlay bear
// content that changes.
Held of_backing(Held above) {
  Held held{.takes = static_cast<uint8_t>(above.takes & kRead), .shares = kRead | kUnchanged};
  if (above.shares & kWrite) held.shares |= kWrite | kResize;
  return held;
}

// A format relies on what it has in memory of its file: nobody else may write there.
Held of_file(bool writable) {
  return {.takes = static_cast<uint8_t>(kRead | (writable ? kWrite | kResize : 0)),
          .shares = kRead | kUnchanged};
}

Held held_of_child(const Node& parent, const Child& child, Held above) {
  const bool writable = !parent.read_only();
  Held held = above;
  if (const auto* own = parent.as<ChildUse>())
    if (own->child_use(child.name, held.takes, held.shares)) return held;
  if (child.role == ChildRole::kBacking) return of_backing(above);
  if (!parent.driver().traits().verbatim) return of_file(writable);
  if (child.role == ChildRole::kExtent)
    return {.takes = static_cast<uint8_t>(kRead | (writable ? kWrite : 0)),
            .shares = kRead | kUnchanged};
  // A window into a file needs the bytes to stay where they are.
  if (child.role == ChildRole::kFile) held.shares &= static_cast<uint8_t>(~kResize);
  return held;
}

void visit(Node* node, std::set<const Node*>& seen, std::vector<Node*>& order) {
  if (!seen.insert(node).second) return;
  for (const Child& child : node->children()) visit(child.node.get(), seen, order);
  order.push_back(node);
}

std::string words_of(uint8_t permissions) {
  std::string text;
  const std::pair<uint8_t, const char*> words[] = {{kRead, "consistent read"},
                                                   {kWrite, "write"},
                                                   {kUnchanged, "write unchanged"},
                                                   {kResize, "resize"}};
  for (const auto& [bit, word] : words)
    if (permissions & bit) text += (text.empty() ? "" : ", ") + std::string(word);
  return text;
}

std::string who(const GraphEdge& edge) {
  const std::string name =
      edge.root != nullptr ? edge.root->use().user : "node '" + edge.parent->node_name() + "'";
  return fmt::format("{} (uses node '{}' as '{}' child)", name, edge.child->node_name(), edge.role);
}

void check_pair(const GraphEdge& one, const GraphEdge& other) {
  const auto refused = static_cast<uint8_t>(one.takes & ~other.shares);
  if (refused == 0) return;
  throw Error(ErrorKind::kLocked,
              fmt::format("Permission conflict on node '{}': permissions '{}' are both required by "
                          "{} and unshared by {}.",
                          one.child->node_name(), words_of(refused), who(one), who(other)));
}

}  // namespace

std::vector<GraphEdge> graph_edges(const std::vector<NodePtr>& nodes,
                                   const std::vector<RootPtr>& roots) {
  std::set<const Node*> seen;
  std::vector<Node*> order;
  for (const NodePtr& node : nodes) visit(node.get(), seen, order);
  std::reverse(order.begin(), order.end());
  std::vector<GraphEdge> edges;
  std::map<const Node*, Held> held;
  const auto add = [&](GraphEdge edge) {
    Held& sum = held[edge.child];
    sum.takes |= edge.takes;
    sum.shares &= edge.shares;
    edges.push_back(edge);
  };
  for (const RootPtr& root : roots)
    add({.root = root.get(),
         .child = root->node().get(),
         .role = root->use().role,
         .takes = root->use().takes,
         .shares = root->use().shares});
  for (Node* node : order) {
    const Held above = held[node];
    for (const Child& child : node->children()) {
      const Held use = held_of_child(*node, child, above);
      add({.parent = node,
           .child = child.node.get(),
           .role = child.name,
           .takes = use.takes,
           .shares = use.shares});
    }
  }
  return edges;
}

Permissions permissions_of(const Node& node, const std::vector<GraphEdge>& edges) {
  Permissions all;
  for (const GraphEdge& edge : edges) {
    if (edge.child != &node) continue;
    all.used |= edge.takes;
    all.unshared |= static_cast<uint8_t>(Permissions::kAll & ~edge.shares);
  }
  return all;
}

void check_edges(const std::vector<GraphEdge>& edges) {
  for (size_t i = 0; i < edges.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (edges[i].child != edges[j].child) continue;
      check_pair(edges[j], edges[i]);
      check_pair(edges[i], edges[j]);
    }
  }
  for (const GraphEdge& edge : edges)
    if ((edge.takes & (kWrite | kUnchanged)) != 0 && edge.child->read_only())
      throw Error(ErrorKind::kDenied, "Block node is read-only");
}

}  // namespace cairn
