#include "block/graph/graph.h"

#include <algorithm>
#include <cctype>

#include "block/capabilities/lockable.h"
#include "block/context.h"
#include "block/graph/edges.h"
#include "block/opener.h"

namespace cairn {
namespace {

constexpr size_t kLongestName = 31;

bool is_node_name(std::string_view name) {
  return !name.empty() && isalpha(static_cast<unsigned char>(name.front())) &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return isalnum(c) || c == '-' || c == '.' || c == '_';
         });
}

RequestCountsPtr new_counts(Context& context) {
  return std::make_shared<RequestCounts>(context.runtime().worker_count());
}

}  // namespace

NodePtr Graph::find(std::string_view name) const {
  for (const GraphNode& one : nodes_)
    if (one.node->node_name() == name) return one.node;
  return nullptr;
}

NodePtr Graph::get(std::string_view name) const {
  NodePtr node = find(name);
  if (node == nullptr)
    throw Error(ErrorKind::kNotFound,
                "Cannot find device='' nor node-name='" + std::string(name) + "'");
  return node;
}

NodePtr Graph::lookup(std::string_view name) const {
  NodePtr node = find(name);
  const std::string text(name);
  if (node == nullptr)
    throw Error(ErrorKind::kNotFound,
                "Cannot find device='" + text + "' nor node-name='" + text + "'");
  return node;
}

std::vector<NodePtr> Graph::nodes() const {
  std::vector<NodePtr> result;
  for (auto at = nodes_.rbegin(); at != nodes_.rend(); ++at) result.push_back(at->node);
  return result;
}

GraphNode& Graph::info(const Node& node) {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                  [&](const GraphNode& one) { return one.node.get() == &node; });
  if (found == nodes_.end())
    throw Error(ErrorKind::kNotFound,
                "Failed to find node with node-name='" + node.node_name() + "'");
  return *found;
}

void Graph::check_new_name(const std::string& name) {
  if (!is_node_name(name)) throw Error(ErrorKind::kInvalid, "Invalid node-name: '" + name + "'");
  if (find(name) != nullptr)
    throw Error(ErrorKind::kExists, "Duplicate nodes with node-name='" + name + "'");
  if (name.size() > kLongestName) throw Error(ErrorKind::kInvalid, "Node name too long");
}

// --- nodes come and go ---

void Graph::opened(NodePtr node, Options options, const OpenFlags& flags) {
  const bool known = find(node->node_name()) != nullptr;
  node->kept_ = true;
  GraphNode added;
  added.node = node;
  added.options = std::move(options);
  added.flags = flags;
  if (added.options.boolean("force-share") == true) added.flags.force_share = true;
  if (counting_) node->count_requests(new_counts(context_));
  {
    std::lock_guard lock(list_mutex_);
    nodes_.push_back(std::move(added));
  }
  // A tree may name two of its nodes the same.
  if (known)
    throw Error(ErrorKind::kExists, "Duplicate nodes with node-name='" + node->node_name() + "'");
  if (listener_) listener_(*node);
}

void Graph::forget(size_t index) {
  std::lock_guard lock(list_mutex_);
  nodes_.erase(nodes_.begin() + static_cast<ptrdiff_t>(index));
}

// --- counting ---

void Graph::count_requests() {
  if (counting_) return;
  counting_ = true;
  {
    std::lock_guard lock(list_mutex_);
    for (const GraphNode& one : nodes_) one.node->count_requests(new_counts(context_));
  }
  for (const RootPtr& root : roots_) root->count_requests(new_counts(context_));
}

std::vector<CountedNode> Graph::counted_nodes() const {
  std::vector<CountedNode> result;
  std::lock_guard lock(list_mutex_);
  for (const GraphNode& one : nodes_)
    if (one.node->counts_ != nullptr)
      result.push_back({one.node->node_name(), one.node, one.node->counts_});
  return result;
}

void Graph::adopt(NodePtr node, const std::string& name) {
  if (!name.empty()) check_new_name(name);
  node->node_name_ = name.empty() ? context_.next_node_name() : name;
  node->discard_unmap_ = true;  // it passes everything on
  OpenFlags flags;
  flags.writable = !node->read_only();
  flags.nodes = this;
  opened(std::move(node), {}, flags);
}

Task<NodePtr> Graph::add(Options options) {
  if (!options.string("node-name"))
    throw Error(ErrorKind::kInvalid, "'node-name' must be specified for the root node");
  return open_spot({}, std::move(options), true);
}

Task<NodePtr> Graph::open(std::string filename, Options options) {
  return open_spot(std::move(filename), std::move(options), false);
}

Task<NodePtr> Graph::open_spot(std::string filename, Options options, bool owned) {
  const size_t before = nodes_.size();
  NodePtr result = co_await on_failure(
      [&]() -> Task<NodePtr> {
        Opener::Spot spot;
        spot.filename = std::move(filename);
        spot.options = std::move(options);
        spot.flags.writable = true;
        spot.flags.resize = true;
        spot.flags.nodes = this;
        NodePtr node = co_await Opener::open(context_, std::move(spot));
        info(*node).owned = owned;
        co_await apply_permissions();
        co_return node;
      },
      [&] { return drop_since(before); });
  co_return result;
}

Task<void> Graph::remove(std::string name) {
  NodePtr node = find(name);
  if (node == nullptr)
    throw Error(ErrorKind::kNotFound, "Failed to find node with node-name='" + name + "'");
  check_free(*node);
  if (!users(*node).empty()) throw Error(ErrorKind::kLocked, "Node " + name + " is in use");
  if (!info(*node).owned)
    throw Error(ErrorKind::kInvalid, "Node " + name + " is not owned by the monitor");
  check_no_overlay(*node);
  if (!parents(*node).empty())
    throw Error(ErrorKind::kLocked, "Block device " + name + " is in use");
  info(*node).owned = false;
  node.reset();
  co_await sweep();
}

bool Graph::in_use(const Node& node) const {
  return !parents(node).empty() || !users(node).empty();
}

// Closes one node. Its children are kept for the time being.
Task<void> Graph::drop(size_t index) {
  const NodePtr node = nodes_[index].node;
  forget(index);
  node->kept_ = false;
  co_await node->close();
}

// What an opening that failed has left, the upper nodes first.
Task<void> Graph::drop_since(size_t first) {
  while (nodes_.size() > first) {
    try {
      co_await drop(nodes_.size() - 1);
    } catch (const Error&) {
      // The first error is the one to report.
    }
  }
}

Task<void> Graph::sweep() {
  for (bool again = !keeps_unused_; again;) {
    again = false;
    for (size_t i = nodes_.size(); i-- > 0;) {
      if (nodes_[i].owned || in_use(*nodes_[i].node)) continue;
      const std::string name = nodes_[i].node->filename();
      again = true;
      try {
        co_await drop(i);
      } catch (const Error& error) {
        context_.warn(name + ": " + error.message());
      }
      break;
    }
  }
  try {
    co_await apply_permissions();
  } catch (const Error& error) {
    context_.warn(error.message());
  }
}

Task<void> Graph::close() {
  std::exception_ptr first;
  roots_.clear();
  // Those above others first, whatever their age.
  while (!nodes_.empty()) {
    size_t top = nodes_.size() - 1;
    for (size_t i = nodes_.size(); i-- > 0;)
      if (parents(*nodes_[i].node).empty()) {
        top = i;
        break;
      }
    try {
      co_await drop(top);
    } catch (...) {
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

// --- users ---

Task<RootPtr> Graph::attach(NodePtr node, NodeUse use) {
  auto root = std::make_shared<Root>(std::move(node), std::move(use));
  if (counting_) root->count_requests(new_counts(context_));
  roots_.push_back(root);
  co_await on_failure([&] { return apply_permissions(); },
                      [&]() -> Task<void> {
                        roots_.erase(std::find(roots_.begin(), roots_.end(), root));
                        co_return;
                      });
  if (holding_ && root->use().job.empty()) {
    co_await root->pause();
    held_.push_back(root);
  }
  co_return root;
}

Task<void> Graph::hold_new_users(bool on) {
  const auto lock = co_await changes_.lock();
  holding_ = on;
  if (on) co_return;
  for (const RootPtr& root : std::exchange(held_, {})) root->resume();
}

Task<void> Graph::detach(RootPtr root) {
  const auto found = std::find(roots_.begin(), roots_.end(), root);
  if (found == roots_.end()) co_return;
  roots_.erase(found);
  co_await sweep();
}

Task<void> Graph::change_use(RootPtr root, uint8_t takes, uint8_t shares) {
  const NodeUse before = root->use_;
  root->set_use(takes, shares);
  co_await on_failure([&] { return apply_permissions(); },
                      [&]() -> Task<void> {
                        root->set_use(before.takes, before.shares);
                        co_return;
                      });
}

std::vector<RootPtr> Graph::users(const Node& node) const {
  std::vector<RootPtr> result;
  for (const RootPtr& root : roots_)
    if (root->node().get() == &node) result.push_back(root);
  return result;
}

std::vector<Node*> Graph::parents(const Node& node) const {
  std::vector<Node*> result;
  for (const GraphNode& one : nodes_)
    for (const Child& child : one.node->children())
      if (child.node.get() == &node) {
        result.push_back(one.node.get());
        break;
      }
  return result;
}

bool Graph::reaches(const Node& node, const Node& lower) {
  return &node == &lower ||
         std::any_of(node.children().begin(), node.children().end(),
                     [&](const Child& child) { return reaches(*child.node, lower); });
}

void Graph::check_free(const Node& node) const {
  for (const RootPtr& root : roots_)
    if (root->node().get() == &node && !root->use().blocks.empty())
      throw Error(ErrorKind::kLocked,
                  "Node '" + node.node_name() + "' is busy: " + root->use().blocks);
}

void Graph::check_no_job(const Node& node) const {
  check_free(node);
  for (const RootPtr& root : users(node))
    if (!root->use().job.empty())
      throw Error(ErrorKind::kLocked,
                  "Node '" + node.node_name() + "' is busy: it is in use by " + root->use().user);
}

void Graph::check_no_overlay(const Node& node) const {
  for (const Node* parent : parents(node))
    if (parent->backing() == &node)
      throw Error(ErrorKind::kLocked, "Node '" + node.node_name() +
                                          "' is busy: node is used as backing hd of '" +
                                          parent->node_name() + "'");
}

// --- permissions ---

Task<void> Graph::apply_permissions() {
  const std::vector<GraphEdge> edges = graph_edges(nodes(), roots_);
  check_edges(edges);
  std::vector<std::pair<Node*, Permissions>> taken;
  std::exception_ptr error;
  try {
    for (GraphNode& one : nodes_) {
      Permissions wanted = permissions_of(*one.node, edges);
      if (one.flags.force_share || !one.active) wanted = {};
      if (wanted == one.locked || one.node->as<Lockable>() == nullptr) continue;
      co_await set_permissions(*one.node, wanted);
      taken.emplace_back(one.node.get(), std::exchange(one.locked, wanted));
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  for (const auto& [node, before] : taken) {
    try {
      co_await set_permissions(*node, before);
      info(*node).locked = before;
    } catch (const Error&) {
      // Somebody else took what was given up a moment ago; the first error says who.
    }
  }
  std::rethrow_exception(error);
}

}  // namespace cairn
