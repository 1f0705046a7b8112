#include <algorithm>

#include "block/capabilities/delaying.h"
#include "block/capabilities/disk_set.h"
#include "block/context.h"
#include "block/graph/graph.h"

// How users and children move from one node to another.
namespace cairn {

std::vector<RootPtr> Graph::roots_above(const std::vector<NodePtr>& nodes) const {
  std::vector<RootPtr> result;
  for (const RootPtr& root : roots_)
    if (std::any_of(nodes.begin(), nodes.end(),
                    [&](const NodePtr& node) { return reaches(*root->node(), *node); }))
      result.push_back(root);
  return result;
}

namespace {

void hurry_tree(Node& node, bool on) {
  if (auto* delaying = node.as<Delaying>()) delaying->hurry(on);
  for (const Child& child : node.children()) hurry_tree(*child.node, on);
}

}  // namespace

void Graph::hurry(bool on) const {
  for (const GraphNode& one : nodes_)
    if (auto* delaying = one.node->as<Delaying>()) delaying->hurry(on);
}

// Owners first: what a request waits for may be theirs, and could not end later on.
Task<void> Graph::hold(std::vector<RootPtr> roots) {
  for (const RootPtr& root : roots)
    if (root->use().owner != nullptr) co_await root->use().owner->rest();
  for (const RootPtr& root : roots) hurry_tree(*root->node(), true);
  for (const RootPtr& root : roots) co_await root->pause();
  for (const RootPtr& root : roots) hurry_tree(*root->node(), false);
}

void Graph::let_go(const std::vector<RootPtr>& roots) {
  for (const RootPtr& root : roots) {
    root->refresh();
    root->resume();
  }
  for (const RootPtr& root : roots)
    if (root->use().owner != nullptr) root->use().owner->wake();
}

void Graph::exchange_child(Node& parent, std::string_view name, NodePtr node) {
  if (!parent.take_child(name, *node))
    throw Error(ErrorKind::kUnsupported, "Node '" + parent.node_name() +
                                             "' cannot get another child '" + std::string(name) +
                                             "' while it is open");
  parent.replace_child(name, std::move(node), ChildRole::kFile);
}

Task<void> Graph::add_disk(NodePtr parent, NodePtr node) {
  auto* set = parent->as<DiskSet>();
  const std::string name = set->next_disk();
  const auto put = [&](const NodePtr& child) {
    parent->replace_child(name, child, ChildRole::kExtent);
    set->disks_changed();
  };
  const auto work = [&]() -> Task<void> {
    put(node);
    co_await on_failure([&] { return apply_permissions(); },
                        [&]() -> Task<void> {
                          put(nullptr);
                          co_return;
                        });
  };
  std::vector<NodePtr> concerned(1, parent);
  co_await drained(std::move(concerned), work);
}

Task<void> Graph::take_disk(NodePtr parent, std::string name) {
  auto* set = parent->as<DiskSet>();
  set->check_fewer();
  std::vector<NodePtr> concerned(1, parent);
  co_await drained(std::move(concerned), [&]() -> Task<void> {
    parent->replace_child(name, nullptr, ChildRole::kExtent);
    set->disks_changed();
    co_return;
  });
  co_await sweep();
}

void Graph::follow_length(const Node& node) {
  for (Node* parent : parents(node))
    for (const Child& child : parent->children())
      if (child.node.get() == &node && child.role == ChildRole::kFiltered &&
          parent->take_child(child.name, *child.node))
        follow_length(*parent);
}

Task<void> Graph::replace(NodePtr from, NodePtr to, Choice moves) {
  struct Link {
    Node* parent;
    std::string name;
  };
  std::vector<Link> links;
  std::vector<RootPtr> movers;
  for (Node* parent : parents(*from)) {
    if (reaches(*to, *parent)) continue;
    for (const Child& child : parent->children())
      if (child.node == from) links.push_back({parent, child.name});
  }
  for (const RootPtr& root : users(*from))
    if (!moves || moves(*root)) movers.push_back(root);
  const auto move = [&](const NodePtr& node) {
    for (const Link& link : links) exchange_child(*link.parent, link.name, node);
    for (const RootPtr& root : movers) root->move_to(node);
  };
  const auto work = [&]() -> Task<void> {
    std::exception_ptr error;
    try {
      move(to);
      co_await apply_permissions();
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) co_return;
    move(from);
    std::rethrow_exception(error);
  };
  std::vector<NodePtr> concerned{from};
  concerned.push_back(to);
  co_await drained(std::move(concerned), work);
}

Task<void> Graph::set_backing(NodePtr overlay, NodePtr backing) {
  const NodePtr before =
      overlay->backing() != nullptr ? overlay->backing()->shared_from_this() : nullptr;
  if (before == backing) co_return;
  check_link(*overlay);
  if (backing != nullptr && reaches(*backing, *overlay))
    throw Error(ErrorKind::kInvalid, "Making '" + backing->node_name() + "' a backing child of '" +
                                         overlay->node_name() + "' would create a cycle");
  std::vector<NodePtr> concerned;
  concerned.push_back(overlay);
  if (backing != nullptr) concerned.push_back(backing);
  co_await drained(std::move(concerned), [&]() -> Task<void> {
    overlay->replace_child("backing", backing, ChildRole::kBacking);
    co_await on_failure([&] { return apply_permissions(); },
                        [&]() -> Task<void> {
                          overlay->replace_child("backing", before, ChildRole::kBacking);
                          co_return;
                        });
  });
}

namespace {

// The nodes from TOP down to BASE that have a backing file, filters in between left out.
std::vector<const Node*> linked_nodes(const Node& top, const Node* base) {
  std::vector<const Node*> result;
  for (const Node* at = &top; at != nullptr && at != base;) {
    const Node* below = at->backing();
    if (below != nullptr) result.push_back(at);
    for (const Child& child : at->children())
      if (below == nullptr && child.role == ChildRole::kFiltered) below = child.node.get();
    at = below;
  }
  return result;
}

}  // namespace

void Graph::freeze(const Node& top, const Node* base) {
  const std::vector<const Node*> linked = linked_nodes(top, base);
  for (const Node* node : linked) check_link(*node);
  for (const Node* node : linked) ++info(*node).frozen;
}

void Graph::thaw(const Node& top, const Node* base) {
  for (const Node* node : linked_nodes(top, base)) --info(*node).frozen;
}

void Graph::check_link(const Node& overlay) {
  if (overlay.backing() != nullptr && info(overlay).frozen != 0)
    throw Error(ErrorKind::kLocked, "Cannot change frozen 'backing' link from '" +
                                        overlay.node_name() + "' to '" +
                                        overlay.backing()->node_name() + "'");
}

}  // namespace cairn
