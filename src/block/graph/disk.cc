#include "block/graph/disk.h"

#include <fmt/core.h>

#include <map>
#include <set>

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/disk_set.h"
#include "block/driver.h"
#include "block/graph/edges.h"
#include "block/graph/reopen.h"

namespace cairn {
namespace {

Value permission_list(uint8_t permissions) {
  const std::pair<uint8_t, const char*> words[] = {
      {Permissions::kResize, "resize"},
      {Permissions::kWriteUnchanged, "write-unchanged"},
      {Permissions::kWrite, "write"},
      {Permissions::kConsistentRead, "consistent-read"}};
  Value list = Value::array();
  for (const auto& [bit, word] : words)
    if (permissions & bit) list.push_back(word);
  return list;
}

// Numbers for all that is in a graph.
class GraphDescription {
 public:
  // ID of what KEY stands for, which is described when it is first asked for.
  uint64_t id_of(const void* key, std::string_view type, const std::string& name) {
    const auto [found, added] = ids_.emplace(key, ids_.size() + 1);
    if (added) {
      Value one = Value::object();
      one.set("id", found->second);
      one.set("type", type);
      one.set("name", name);
      nodes_.push_back(std::move(one));
    }
    return found->second;
  }
  uint64_t id_of(const GraphEdge& edge) {
    if (edge.root == nullptr) return id_of(edge.parent, "block-driver", edge.parent->node_name());
    const NodeUse& use = edge.root->use();
    if (use.job.empty()) return id_of(edge.root, "block-backend", "");
    // All parts of a job are one.
    const std::string& name = *jobs_.insert(use.job).first;
    return id_of(&name, "block-job", name);
  }
  void add(const GraphEdge& edge) {
    Value one = Value::object();
    one.set("parent", id_of(edge));
    one.set("child", id_of(edge.child, "block-driver", edge.child->node_name()));
    one.set("name", edge.role);
    one.set("perm", permission_list(edge.takes));
    one.set("shared-perm", permission_list(edge.shares));
    edges_.push_back(std::move(one));
  }
  Value take() {
    Value all = Value::object();
    all.set("nodes", std::move(nodes_));
    all.set("edges", std::move(edges_));
    return all;
  }

 private:
  std::map<const void*, uint64_t> ids_;
  std::set<std::string> jobs_;
  Value nodes_ = Value::array();
  Value edges_ = Value::array();
};

}  // namespace

Task<void> resize_node(Graph& graph, std::string name, int64_t size) {
  const NodePtr node = graph.get(name);
  if (size < 0) throw Error(ErrorKind::kInvalid, "Parameter 'size' expects a >0 size");
  graph.check_free(*node);
  graph.check_no_overlay(*node);
  if (node->read_only()) throw Error(ErrorKind::kDenied, "Image is read-only");
  NodeUse use;
  use.takes = Permissions::kResize;
  const RootPtr root = co_await graph.attach(node, std::move(use));
  const auto work = [&]() -> Task<void> {
    const ResizeRequest request{.length = static_cast<uint64_t>(size)};
    co_await node->resize(request);
    graph.follow_length(*node);
  };
  std::vector<NodePtr> concerned(1, node);
  co_await finally([&] { return graph.drained(std::move(concerned), work); },
                   [&] { return graph.detach(root); });
}

Task<void> change_backing_name(Graph& graph, std::string device, std::string image,
                               std::string backing) {
  const NodePtr top = graph.lookup(device);
  NodePtr node = graph.get(image);
  if (!graph.parents(*top).empty()) throw Error(ErrorKind::kLocked, "Need a root block node");
  if (node->backing() == nullptr)
    throw Error(ErrorKind::kInvalid,
                "not allowing backing file change on an image without a backing file");
  bool below = false;
  for (const Node* at = top.get(); at != nullptr && !below; at = at->layer_below())
    below = at == node.get();
  if (!below)
    throw Error(ErrorKind::kInvalid, "'" + device + "' and image file are not in the same chain");
  graph.check_no_job(*top);
  graph.check_no_job(*node);
  const bool writable = !node->read_only();
  node = co_await reopen_as(graph, node, true);
  const std::string format(node->backing()->driver().name());
  std::vector<NodePtr> concerned(1, node);
  co_await finally(
      [&] {
        return graph.drained(std::move(concerned), [&]() -> Task<void> {
          try {
            co_await change_backing(*node, backing, format);
          } catch (Error& error) {
            throw error.context("Could not change backing file to '" + backing + "'");
          }
        });
      },
      [&]() -> Task<void> {
        if (!writable) static_cast<void>(co_await reopen_as(graph, node, false));
      });
}

Task<void> change_disks(Graph& graph, std::string parent_name, std::string child,
                        std::string node_name) {
  const NodePtr parent = graph.lookup(parent_name);
  if (child.empty() && node_name.empty())
    throw Error(ErrorKind::kInvalid, "Either child or node must be specified");
  if (!child.empty() && !node_name.empty())
    throw Error(ErrorKind::kInvalid, "The parameters child and node are in conflict");
  if (!child.empty() && parent->child(child) == nullptr)
    throw Error(ErrorKind::kNotFound,
                "Node '" + parent_name + "' does not have child '" + child + "'");
  const NodePtr node = node_name.empty() ? nullptr : graph.find(node_name);
  if (node == nullptr && !node_name.empty())
    throw Error(ErrorKind::kNotFound, "Node '" + node_name + "' not found");
  if (parent->as<DiskSet>() == nullptr)
    throw Error(ErrorKind::kUnsupported, "The node " + parent_name + " does not support " +
                                             (node ? "adding" : "removing") + " a child");
  if (node == nullptr) {
    co_await graph.take_disk(parent, std::move(child));
    co_return;
  }
  if (!graph.parents(*node).empty())
    throw Error(ErrorKind::kLocked, "The node " + node_name + " already has a parent");
  if (Graph::reaches(*node, *parent))
    throw Error(ErrorKind::kInvalid,
                "Making '" + node_name + "' a child of '" + parent_name + "' would create a cycle");
  if (node->length() != parent->length())
    throw Error(ErrorKind::kInvalid,
                fmt::format("The children of a quorum must be of the same size: {} and {} bytes",
                            parent->length(), node->length()));
  co_await graph.add_disk(parent, node);
}

Value describe_graph(const Graph& graph) {
  GraphDescription description;
  std::vector<NodePtr> nodes = graph.nodes();
  const std::vector<GraphEdge> edges = graph_edges(nodes, graph.roots());
  for (const NodePtr& node : nodes)
    static_cast<void>(description.id_of(node.get(), "block-driver", node->node_name()));
  for (const NodePtr& node : nodes)
    for (const GraphEdge& edge : edges)
      if (edge.parent == node.get()) description.add(edge);
  for (const GraphEdge& edge : edges)
    if (edge.root != nullptr) description.add(edge);
  return description.take();
}

}  // namespace cairn
