#include "block/graph/reopen.h"

#include <algorithm>

#include "block/capabilities/backing_link.h"
#include "block/capabilities/disk_set.h"
#include "block/capabilities/opened_once.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/graph/edges.h"
#include "block/opener.h"

namespace cairn {
namespace {

// Extents of formats are found by the format itself, and opened with it.
bool is_passed(const Node& node, const Child& child) {
  return child.role != ChildRole::kExtent || node.driver().traits().verbatim;
}

[[noreturn]] void cannot_change(const std::string& option) {
  throw Error(ErrorKind::kInvalid, "Cannot change the option '" + option + "'");
}

// What a protocol was opened with says which storage it is.
void check_fixed(const Node& node, const Options& before, const Options& after) {
  static constexpr std::string_view kGeneric[] = {
      "driver",  "read-only", "auto-read-only", "cache.direct", "cache.no-flush",
      "discard", "active",    "detect-zeroes",  "force-share"};
  const auto generic = [](const std::string& key) {
    return std::find(std::begin(kGeneric), std::end(kGeneric), key) != std::end(kGeneric);
  };
  if (node.driver().kind() != DriverKind::kProtocol) return;
  for (const auto& [key, value] : after.items())
    if (!generic(key) && (!before.has(key) || before.string(key) != after.string(key)))
      cannot_change(key);
  for (const auto& [key, value] : before.items())
    if (!generic(key) && !after.has(key))
      throw Error(ErrorKind::kInvalid, "Option '" + key + "' cannot be reset to its default value");
}

}  // namespace

Reopener::Recipe Reopener::recipe_of(const Node& node) const {
  const GraphNode& known = graph_.info(node);
  Recipe recipe{.options = known.options, .flags = known.flags, .children = {}};
  if (node.as<BackingName>() != nullptr) recipe.children["backing"] = "";
  // Disks of a set are counted again: options have no gaps.
  const bool counted = node.as<DiskSet>() != nullptr;
  size_t number = 0;
  for (const Child& child : node.children())
    if (is_passed(node, child))
      recipe.children[counted ? "children." + std::to_string(number++) : child.name] =
          child.node->node_name();
  return recipe;
}

Options Reopener::Recipe::whole() const {
  Options all = options;
  for (const auto& [name, below] : children)
    all.set(name, below.empty() ? Value(nullptr) : Value(below));
  return all;
}

Options Reopener::options_of(const Node& node) const { return recipe_of(node).whole(); }

bool Reopener::opened_by_parent(const Node& node) const {
  if (graph_.info(node).owned) return false;
  const std::vector<Node*> parents = graph_.parents(node);
  return std::any_of(parents.begin(), parents.end(), [&](const Node* parent) {
    const auto& children = parent->children();
    return std::any_of(children.begin(), children.end(), [&](const Child& child) {
      return child.node.get() == &node && !is_passed(*parent, child);
    });
  });
}

Reopener::Item& Reopener::item_of(const NodePtr& node) {
  for (Item& item : items_)
    if (item.node == node) return item;
  Item& item = items_.emplace_back();
  item.node = node;
  item.before = recipe_of(*node);
  item.after = item.before;
  return item;
}

void Reopener::set_writable(Item& item, bool writable) {
  item.after.flags.writable = writable;
  item.after.options.erase("read-only");
  const NodePtr node = item.node;
  for (const Child& child : node->children()) {
    const GraphNode& below = graph_.info(*child.node);
    if (child.role == ChildRole::kBacking || !is_passed(*node, child) || below.owned ||
        below.options.has("read-only") || child.node->read_only() == !writable ||
        graph_.parents(*child.node).size() != 1)
      continue;
    set_writable(item_of(child.node), writable);
  }
}

void Reopener::add(const NodePtr& node, bool writable) {
  if (node->read_only() == writable) set_writable(item_of(node), writable);
}

bool Reopener::opened_for_parent(const std::string& name) const {
  const NodePtr node = graph_.find(name);
  return node != nullptr && !graph_.info(*node).owned && graph_.parents(*node).size() == 1;
}

// The children that OPTIONS name, and in INSIDE the options of those that were opened by options.
void Reopener::take_children(Item& item, Options& options,
                             std::vector<std::pair<NodePtr, Options>>& inside) {
  for (auto& [name, below] : item.after.children) {
    Options tree = options.take_tree(name);
    if (!tree.empty()) {
      if (!opened_for_parent(below)) cannot_change(name + "." + tree.items().front().first);
      if (tree.has("node-name")) cannot_change("node-name");
      inside.emplace_back(graph_.find(below), std::move(tree));
    }
    if (!options.has(name)) continue;
    const bool none = options.is_null(name);
    const std::string wanted = none ? "" : *options.string(name);
    options.erase(name);
    if (wanted == below) continue;
    if (name == "backing") graph_.check_link(*item.node);
    if (none && name != "backing") cannot_change(name);
    if (!none) {
      const NodePtr node = graph_.get(wanted);
      if (Graph::reaches(*node, *item.node))
        throw Error(ErrorKind::kInvalid, "Making '" + wanted + "' a " + name + " child of '" +
                                             item.node->node_name() + "' would create a cycle");
    }
    below = wanted;
  }
}

void Reopener::add(Options options) {
  const auto name = options.string("node-name");
  if (!name) throw Error(ErrorKind::kInvalid, "node-name not specified");
  const NodePtr node = graph_.find(*name);
  if (node == nullptr)
    throw Error(ErrorKind::kNotFound, "Failed to find node with node-name='" + *name + "'");
  options.erase("node-name");
  take_options(node, std::move(options), true);
}

// WRITABLE: it is unless its options say something else.
void Reopener::take_options(const NodePtr& node, Options options, bool writable) {
  if (node->backing() != nullptr && !options.has("backing") && !options.has_tree("backing"))
    throw Error(ErrorKind::kInvalid, "backing is missing for '" + node->node_name() + "'");
  if (options.string("driver") != std::string(node->driver().name())) cannot_change("driver");
  std::vector<std::pair<NodePtr, Options>> inside;
  Item& item = item_of(node);
  take_children(item, options, inside);
  check_fixed(*node, item.before.options, options);
  by_command_ = true;
  writable = !options.boolean("read-only").value_or(!writable);
  item.after.options = std::move(options);
  set_writable(item, writable);
  for (auto& [child, tree] : inside) {
    const bool backing = child.get() == node->backing();
    take_options(child, std::move(tree), writable && !backing);
  }
}

// Formats that have one of the nodes as their file, and those for whom these are files.
void Reopener::add_parents() {
  for (size_t i = 0; i < items_.size(); ++i) {
    const NodePtr node = items_[i].node;
    for (Node* parent : graph_.parents(*node))
      for (const Child& child : parent->children())
        if (child.node == node && !parent->take_child(child.name, *node))
          item_of(parent->shared_from_this());
  }
}

void Reopener::sort_items() {
  std::vector<Item> sorted;
  while (!items_.empty()) {
    const auto top = std::find_if(items_.begin(), items_.end(), [&](const Item& item) {
      return std::none_of(items_.begin(), items_.end(), [&](const Item& other) {
        return &item != &other && Graph::reaches(*other.node, *item.node);
      });
    });
    sorted.push_back(std::move(*top));
    items_.erase(top);
  }
  items_ = std::move(sorted);
}

// A node cannot become read-only below those who write to it.
void Reopener::check_writers() const {
  for (const GraphEdge& edge : graph_edges(graph_.nodes(), graph_.roots())) {
    const auto is = [](const Node* node) {
      return [node](const Item& item) { return item.node.get() == node; };
    };
    const auto item = std::find_if(items_.begin(), items_.end(), is(edge.child));
    if (item == items_.end() || item->after.flags.writable ||
        (edge.takes & Permissions::kWrite) == 0 ||
        std::any_of(items_.begin(), items_.end(), is(edge.parent)))
      continue;
    throw Error(ErrorKind::kDenied, "Read-only block node '" + edge.child->node_name() +
                                        "' cannot support read-write users");
  }
}

Task<void> Reopener::run() {
  add_parents();
  for (const Item& item : items_)
    if (item.node->as<OpenedOnce>() != nullptr)
      throw Error(ErrorKind::kUnsupported,
                  "Block format '" + std::string(item.node->driver().name()) + "' used by node '" +
                      item.node->node_name() + "' does not support reopening files");
  check_writers();
  if (by_command_)
    for (const Item& item : items_) graph_.check_no_job(*item.node);
  sort_items();
  std::vector<NodePtr> nodes;
  for (const Item& item : items_) nodes.push_back(item.node);
  co_await graph_.drained(std::move(nodes), [&] { return exchange(); });
}

Task<void> Reopener::exchange() {
  std::vector<NodePtr> old;
  for (const Item& item : items_) old.push_back(item.node);
  std::exception_ptr error;
  try {
    co_await close_items();
    co_await open_items(&Item::after);
    settle(old);
    co_await graph_.apply_permissions();
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  std::vector<NodePtr> tried;
  for (const Item& item : items_) tried.push_back(item.node);
  try {
    co_await close_items();
    co_await open_items(&Item::before);
  } catch (const Error& again) {
    graph_.context().warn(
        "a node that could not be opened with new options cannot be opened with "
        "the old ones either: " +
        again.message());
  }
  settle(old);
  settle(tried);
  try {
    co_await graph_.apply_permissions();
  } catch (const Error& again) {
    graph_.context().warn(again.message());
  }
  std::rethrow_exception(error);
}

Task<void> Reopener::close_items() {
  std::exception_ptr error;
  for (Item& item : items_) {
    if (!item.open) continue;
    item.open = false;
    item.node->kept_ = false;
    try {
      co_await item.node->close();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
    item.node->kept_ = true;
    for (const Child& child : item.node->children()) {
      if (is_passed(*item.node, child)) continue;
      const auto found = std::find_if(graph_.nodes_.begin(), graph_.nodes_.end(),
                                      [&](const GraphNode& one) { return one.node == child.node; });
      if (found != graph_.nodes_.end())
        co_await graph_.drop(static_cast<size_t>(found - graph_.nodes_.begin()));
    }
    graph_.info(*item.node).locked = {};
  }
  if (error) std::rethrow_exception(error);
}

// Those below others first.
Task<void> Reopener::open_items(Recipe Item::*recipe) {
  for (auto item = items_.rbegin(); item != items_.rend(); ++item)
    co_await open_item(*item, (*item).*recipe);
}

// The new node takes the place of the old one in the list of nodes, where those above find it.
Task<void> Reopener::open_item(Item& item, Recipe recipe) {
  const Options own = recipe.options;
  Opener::Spot spot;
  spot.options = recipe.whole();
  spot.flags = recipe.flags;
  spot.flags.nodes = &graph_;
  const size_t before = graph_.nodes_.size();
  const NodePtr node =
      co_await on_failure([&] { return Opener::open(graph_.context(), std::move(spot)); },
                          [&] { return graph_.drop_since(before); });
  const auto added = std::find_if(graph_.nodes_.begin(), graph_.nodes_.end(),
                                  [&](const GraphNode& one) { return one.node == node; });
  // Who looks at the list meanwhile finds the node once, under its name.
  std::lock_guard lock(graph_.list_mutex_);
  graph_.nodes_.erase(added);
  GraphNode& place = graph_.info(*item.node);
  node->node_name_ = item.node->node_name();
  node->bitmaps().adopt(item.node->bitmaps());
  node->count_requests(item.node->counts_);
  place.node = node;
  place.options = own;
  place.flags = recipe.flags;
  place.flags.force_share = own.boolean("force-share") == true;
  item.node = node;
  item.open = true;
}

// What used the OLD nodes uses what they are now.
void Reopener::settle(const std::vector<NodePtr>& old) {
  for (size_t i = 0; i < old.size(); ++i) {
    const NodePtr node = items_[i].node;
    if (old[i] == node) continue;
    for (Node* parent : graph_.parents(*old[i])) {
      std::vector<std::string> names;
      for (const Child& child : parent->children())
        if (child.node == old[i]) names.push_back(child.name);
      for (const std::string& name : names) graph_.exchange_child(*parent, name, node);
    }
    for (const RootPtr& root : graph_.users(*old[i])) root->move_to(node);
  }
}

Task<NodePtr> reopen_as(Graph& graph, NodePtr node, bool writable) {
  const std::string name = node->node_name();
  if (node->read_only() == !writable) co_return node;
  Reopener reopener(graph);
  reopener.add(node, writable);
  node.reset();
  co_await reopener.run();
  co_return graph.get(name);
}

}  // namespace cairn
