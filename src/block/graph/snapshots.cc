#include "block/graph/snapshots.h"

#include <algorithm>
#include <set>

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/snapshot_store.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/graph/lasting_name.h"
#include "block/graph/reopen.h"

namespace cairn {
namespace {

// Jobs work on the nodes that they were given.
bool is_no_job(const Root& root) { return root.use().job.empty(); }

// Puts an overlay over a node, and takes it away again.
class SnapshotAction : public GraphAction {
 public:
  SnapshotAction(Graph& graph, std::string node, std::string overlay)
      : graph_(graph), node_name_(std::move(node)), overlay_name_(std::move(overlay)) {}

  Task<void> prepare() override {
    const NodePtr node = graph_.lookup(node_name_);
    check_node(*node);
    const NodePtr overlay = graph_.lookup(overlay_name_);
    if (!graph_.users(*overlay).empty())
      throw Error(ErrorKind::kLocked, "The overlay is already in use");
    if (overlay->driver().kind() == DriverKind::kFilter)
      throw Error(ErrorKind::kInvalid, "Filters cannot be used as overlays");
    if (overlay->backing() != nullptr)
      throw Error(ErrorKind::kInvalid, "The overlay already has a backing image");
    if (overlay->as<BackingName>() == nullptr)
      throw Error(ErrorKind::kUnsupported, "The overlay does not support backing images");
    if (!Graph::reaches(*node, *overlay) && !graph_.parents(*overlay).empty())
      throw Error(ErrorKind::kLocked, "The overlay is already in use");
    co_await put_over(node, overlay);
  }
  // The layer below is done with, unless a job still has it.
  Task<void> commit() override {
    const NodePtr node = graph_.get(node_name_);
    const std::vector<RootPtr> jobs = graph_.users(*node);
    if (!jobs.empty()) co_return;
    try {
      static_cast<void>(co_await reopen_as(graph_, node, false));
    } catch (const Error& error) {
      graph_.context().warn("node '" + node_name_ + "' stays writable: " + error.message());
    }
  }
  Task<void> abort() override {
    const NodePtr node = graph_.get(node_name_);
    const NodePtr overlay = graph_.get(overlay_name_);
    try {
      co_await graph_.replace(overlay, node, is_no_job);
      co_await graph_.set_backing(overlay, nullptr);
    } catch (const Error& error) {
      graph_.context().warn("a snapshot could not be taken back: " + error.message());
    }
  }

 protected:
  Graph& graph() const { return graph_; }
  const std::string& node_name() const { return node_name_; }
  void check_node(const Node& node) const {
    graph_.check_free(node);
    graph_.check_no_overlay(node);
  }
  Task<void> put_over(NodePtr node, NodePtr overlay) {
    co_await graph_.set_backing(overlay, node);
    co_await on_failure([&] { return graph_.replace(node, overlay, is_no_job); },
                        [&] { return graph_.set_backing(overlay, nullptr); });
  }

 private:
  Graph& graph_;
  const std::string node_name_;
  const std::string overlay_name_;
};

class SnapshotFileAction final : public SnapshotAction {
 public:
  SnapshotFileAction(Graph& graph, SnapshotFile request)
      : SnapshotAction(graph, request.node, request.overlay), request_(std::move(request)) {}

  Task<void> prepare() override {
    const NodePtr node = graph().get(request_.node);
    check_node(*node);
    if (request_.overlay.empty()) throw Error(ErrorKind::kInvalid, "New overlay node-name missing");
    if (graph().find(request_.overlay) != nullptr)
      throw Error(ErrorKind::kExists, "New overlay node-name already in use");
    const Driver* driver = graph().context().registry().find(request_.format);
    if (driver == nullptr)
      throw Error(ErrorKind::kInvalid, "Unknown file format '" + request_.format + "'");
    if (!request_.existing) co_await make_file(*node);
    Options options;
    options.set("driver", request_.format);
    options.set("node-name", request_.overlay);
    options.set("file.filename", request_.file);
    options.set("backing", nullptr);
    // The driver has backing files, or no option of that name.
    if (!driver->offers<BackingName>())
      throw Error(ErrorKind::kUnsupported, "The overlay does not support backing images");
    const NodePtr overlay = co_await graph().add(std::move(options));
    graph().info(*overlay).owned = false;
    co_await on_failure([&] { return put_over(node, overlay); }, [&] { return graph().sweep(); });
  }
  Task<void> commit() override {
    co_await SnapshotAction::commit();
    co_await graph().sweep();
  }
  Task<void> abort() override {
    co_await SnapshotAction::abort();
    co_await graph().sweep();
  }

 private:
  Task<void> make_file(Node& node) {
    CreateOptions fresh;
    fresh.filename = request_.file;
    fresh.format = request_.format;
    fresh.size = node.length();
    fresh.options.set("backing_file", lasting_name(node));
    fresh.options.set("backing_fmt", node.driver().name());
    fresh.backing_unchecked = true;
    fresh.overwrite = true;
    fresh.announce = request_.announce;
    co_await create_image(graph().context(), std::move(fresh));
  }

  const SnapshotFile request_;
};

// What can keep snapshots of its own is a root.
NodePtr root_for_snapshots(const Graph& graph, const std::string& name) {
  const NodePtr node = graph.lookup(name);
  if (!graph.parents(*node).empty()) throw Error(ErrorKind::kLocked, "Need a root block node");
  graph.check_free(*node);
  return node;
}

[[noreturn]] void no_snapshots(const Node& node) {
  throw Error(ErrorKind::kUnsupported, "Block format '" + std::string(node.driver().name()) +
                                           "' used by device '" + node.node_name() +
                                           "' does not support internal snapshots");
}

class InternalSnapshotAction final : public GraphAction {
 public:
  InternalSnapshotAction(Graph& graph, std::string node, std::string name)
      : graph_(graph), node_(std::move(node)), name_(std::move(name)) {}

  Task<void> prepare() override {
    const NodePtr node = root_for_snapshots(graph_, node_);
    if (node->as<SnapshotStore>() == nullptr) no_snapshots(*node);
    if (node->read_only()) throw Error(ErrorKind::kDenied, "Device '" + node_ + "' is read only");
    if (name_.empty()) throw Error(ErrorKind::kInvalid, "Name is empty");
    const std::vector<SnapshotRecord> known = snapshots_of(*node);
    if (std::any_of(known.begin(), known.end(),
                    [&](const SnapshotRecord& one) { return one.name == name_; }))
      throw Error(ErrorKind::kExists,
                  "Snapshot with name '" + name_ + "' already exists on device '" + node_ + "'");
    std::vector<NodePtr> concerned(1, node);
    co_await graph_.drained(std::move(concerned), [&] { return create_snapshot(*node, name_); });
  }
  Task<void> abort() override {
    try {
      const NodePtr node = graph_.get(node_);
      std::vector<NodePtr> concerned(1, node);
      co_await graph_.drained(std::move(concerned), [&] { return delete_snapshot(*node, name_); });
    } catch (const Error& error) {
      graph_.context().warn("snapshot '" + name_ + "' stays: " + error.message());
    }
  }

 private:
  Graph& graph_;
  const std::string node_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<GraphAction> snapshot_action(Graph& graph, std::string node, std::string overlay) {
  return std::make_unique<SnapshotAction>(graph, std::move(node), std::move(overlay));
}

std::unique_ptr<GraphAction> snapshot_file_action(Graph& graph, SnapshotFile request) {
  return std::make_unique<SnapshotFileAction>(graph, std::move(request));
}

std::unique_ptr<GraphAction> internal_snapshot_action(Graph& graph, std::string node,
                                                      std::string name) {
  return std::make_unique<InternalSnapshotAction>(graph, std::move(node), std::move(name));
}

Task<SnapshotRecord> delete_internal_snapshot(Graph& graph, std::string node_name, std::string id,
                                              std::string name) {
  if (id.empty() && name.empty()) throw Error(ErrorKind::kInvalid, "Name or id must be provided");
  const NodePtr node = root_for_snapshots(graph, node_name);
  if (node->as<SnapshotStore>() == nullptr)
    throw Error::system(ENOTSUP, "Failed to get a snapshot list");
  const std::vector<SnapshotRecord> known = snapshots_of(*node);
  const auto found = std::find_if(known.begin(), known.end(), [&](const SnapshotRecord& one) {
    return (id.empty() || one.id == id) && (name.empty() || one.name == name);
  });
  const auto quoted = [](const std::string& text) { return text.empty() ? "null" : text; };
  if (found == known.end())
    throw Error(ErrorKind::kNotFound, "Snapshot with id '" + std::string(quoted(id)) +
                                          "' and name '" + quoted(name) +
                                          "' does not exist on device '" + node_name + "'");
  const SnapshotRecord record = *found;
  const auto first = std::find_if(known.begin(), known.end(), [&](const SnapshotRecord& one) {
    return one.name == record.name;
  });
  if (first != found)
    throw Error(ErrorKind::kUnsupported,
                "Snapshot '" + record.id + "' shares its name with an older one");
  std::vector<NodePtr> concerned(1, node);
  co_await graph.drained(std::move(concerned), [&] { return delete_snapshot(*node, record.name); });
  co_return record;
}

}  // namespace cairn
