#include "block/graph/active.h"

#include <algorithm>

#include "block/graph/reopen.h"

namespace cairn {
namespace {

// NODE and what is below it and below nodes that change as well, but in no other use.
void collect(Graph& graph, const NodePtr& node, std::vector<NodePtr>& nodes) {
  nodes.push_back(node);
  for (const Child& child : node->children()) {
    const std::vector<Node*> parents = graph.parents(*child.node);
    const bool all = std::all_of(parents.begin(), parents.end(), [&](const Node* parent) {
      return std::any_of(nodes.begin(), nodes.end(),
                         [&](const NodePtr& one) { return one.get() == parent; });
    });
    const bool listed = std::find(nodes.begin(), nodes.end(), child.node) != nodes.end();
    if (all && !listed) collect(graph, child.node, nodes);
  }
}

void check_users(const Graph& graph, const std::vector<NodePtr>& nodes, bool all) {
  for (const NodePtr& node : nodes)
    for (const RootPtr& user : graph.users(*node))
      if (!user->use().allows_inactive && (user->use().takes & Permissions::kWrite) != 0)
        throw Error(ErrorKind::kDenied, std::string("Failed to inactivate ") +
                                            (all ? "all nodes" : "node") +
                                            ": Operation not permitted")
            .hint("'" + node->node_name() + "' is used by " + user->use().user + ".");
}

Task<void> deactivate(Graph& graph, std::vector<NodePtr> nodes, bool all) {
  check_users(graph, nodes, all);
  Reopener reopener(graph);
  std::vector<std::string> writable;
  std::vector<std::string> names;
  for (const NodePtr& node : nodes) {
    names.push_back(node->node_name());
    if (node->read_only()) continue;
    writable.push_back(node->node_name());
    reopener.add(node, false);
  }
  nodes.clear();
  co_await reopener.run();
  for (const std::string& name : names) graph.info(*graph.get(name)).active = false;
  for (const std::string& name : writable) graph.info(*graph.get(name)).writable_if_active = true;
  co_await graph.apply_permissions();
}

Task<void> activate(Graph& graph, std::vector<NodePtr> nodes) {
  Reopener reopener(graph);
  std::vector<std::pair<std::string, bool>> names;
  for (const NodePtr& node : nodes) {
    names.emplace_back(node->node_name(), graph.info(*node).writable_if_active);
    GraphNode& known = graph.info(*node);
    known.active = true;
    reopener.add(node);
    if (std::exchange(known.writable_if_active, false)) reopener.add(node, true);
  }
  const std::vector<NodePtr> before = std::exchange(nodes, {});
  co_await on_failure([&] { return reopener.run(); },
                      [&]() -> Task<void> {
                        for (const auto& [name, writable] : names) {
                          GraphNode& known = graph.info(*graph.get(name));
                          known.active = false;
                          known.writable_if_active = writable;
                        }
                        co_await graph.apply_permissions();
                      });
}

}  // namespace

Task<void> set_active(Graph& graph, std::string name, bool active) {
  std::vector<NodePtr> tops;
  if (!name.empty() && graph.find(name) == nullptr)
    throw Error(ErrorKind::kNotFound, "Failed to find node with node-name='" + name + "'");
  if (!name.empty())
    tops.push_back(graph.find(name));
  else
    for (const NodePtr& node : graph.nodes())
      if (graph.parents(*node).empty()) tops.push_back(node);
  std::vector<NodePtr> nodes;
  for (const NodePtr& top : tops) {
    if (graph.info(*top).active == active) continue;
    for (const Node* parent : graph.parents(*top))
      if (!active && graph.info(*parent).active)
        throw Error(ErrorKind::kLocked, "Node has active parent node");
    collect(graph, top, nodes);
  }
  std::erase_if(nodes, [&](const NodePtr& node) { return graph.info(*node).active == active; });
  if (nodes.empty()) co_return;
  tops.clear();
  if (active)
    co_await activate(graph, std::move(nodes));
  else
    co_await deactivate(graph, std::move(nodes), name.empty());
}

}  // namespace cairn
