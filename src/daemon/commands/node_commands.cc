#include <algorithm>
#include <cstddef>

#include "block/capabilities/backing_link.h"
#include "block/capabilities/image_info.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/objects.h"
#include "operation/describe.h"

namespace cairn::daemon {
namespace {

Task<Value> blockdev_add(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  Options options = Options::from_value(arguments);
  co_await daemon.graph().add(std::move(options));
  co_return Value::object();
}

Task<Value> blockdev_del(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  co_await daemon.graph().remove(text_of(arguments, "node-name"));
  co_return Value::object();
}

Value describe_bitmaps(const Node& node) {
  Value list = Value::array();
  const auto all = node.bitmaps().list();
  for (auto at = all.rbegin(); at != all.rend(); ++at) {
    const DirtyBitmap& bitmap = **at;
    Value one = Value::object();
    if (!bitmap.name().empty()) one.set("name", bitmap.name());
    one.set("recording", bitmap.enabled() && !bitmap.inconsistent());
    one.set("persistent", bitmap.persistent());
    one.set("busy", bitmap.busy());
    if (bitmap.inconsistent()) one.set("inconsistent", true);
    one.set("granularity", bitmap.granularity());
    one.set("count", bitmap.inconsistent() ? 0 : bitmap.dirty_bytes());
    list.push_back(std::move(one));
  }
  return list;
}

// How many backing files are below NODE.
unsigned depth_of(const Node& node) {
  unsigned depth = 0;
  for (const Node* layer = &node; layer != nullptr;) {
    if (layer->backing() != nullptr) ++depth;
    layer = layer->backing() != nullptr ? layer->backing() : layer->filtered();
  }
  return depth;
}

// The image of NODE; with CHAIN also those below, each in the one above.
Task<Value> describe_image(Node& node, bool chain) {
  Value described = co_await operation::describe(node);
  Value image = Value::object();
  for (const auto& [name, value] : *described.get_if<Value::Object>())
    if (name != "children") image.set(name, value);
  // These drivers know nothing of themselves.
  const std::string_view driver = node.driver().name();
  const bool silent = driver.starts_with("null-") || driver == "parallels" ||
                      driver == "blkverify" || driver == "quorum" || driver == "snapshot-access";
  if (image.find("dirty-flag") == nullptr && !silent) image.set("dirty-flag", false);
  if (!chain || node.backing() == nullptr) co_return image;
  Value below = co_await describe_image(*node.backing(), true);
  image.set("backing-image", std::move(below));
  co_return image;
}

Value describe_cache(const GraphNode& known) {
  const auto flag = [&](std::string_view name) { return known.options.boolean(name) == true; };
  Value cache = Value::object();
  cache.set("no-flush", flag("cache.no-flush") || known.flags.cache.no_flush);
  cache.set("direct", flag("cache.direct") || known.flags.cache.direct);
  cache.set("writeback", true);
  return cache;
}

Task<Value> describe_node(Daemon& daemon, NodePtr node, bool flat) {
  const GraphNode& known = daemon.graph().info(*node);
  Value shown = Value::object();
  shown.set("detect_zeroes", known.options.string("detect-zeroes").value_or("off"));
  shown.set("active", known.active);
  shown.set("cache", describe_cache(known));
  for (const char* limit : {"iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"})
    shown.set(limit, 0);
  Value image = co_await describe_image(*node, !flat);
  shown.set("encrypted", image.find("encrypted") != nullptr);
  shown.set("image", std::move(image));
  shown.set("ro", node->read_only());
  shown.set("node-name", node->node_name());
  shown.set("backing_file_depth", flat ? 0 : depth_of(*node));
  shown.set("drv", node->driver().name());
  if (node->backing() != nullptr) shown.set("backing_file", node->backing()->filename());
  shown.set("write_threshold", static_cast<int64_t>(node->bitmaps().threshold()));
  if (!node->bitmaps().list().empty()) shown.set("dirty-bitmaps", describe_bitmaps(*node));
  shown.set("file", node->filename());
  co_return shown;
}

// A node that cannot be described does not hide the others.
Task<Value> describe_or_name(Daemon& daemon, NodePtr node, bool flat) {
  std::string trouble;
  try {
    Value shown = co_await describe_node(daemon, node, flat);
    co_return shown;
  } catch (const Error& error) {
    trouble = error.message();
  }
  daemon.context().warn(node->node_name() + ": " + trouble);
  Value image = Value::object();
  image.set("filename", node->filename());
  image.set("format", node->driver().name());
  image.set("virtual-size", node->length());
  Value shown = Value::object();
  shown.set("node-name", node->node_name());
  shown.set("drv", node->driver().name());
  shown.set("ro", node->read_only());
  shown.set("file", node->filename());
  shown.set("image", std::move(image));
  shown.set("detect_zeroes", "off");
  shown.set("active", true);
  shown.set("encrypted", false);
  shown.set("backing_file_depth", 0);
  shown.set("write_threshold", 0);
  for (const char* limit : {"iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"})
    shown.set(limit, 0);
  shown.set("cache", describe_cache(daemon.graph().info(*node)));
  co_return shown;
}

// True where NODE was opened for PARENT, as another child than its file, or for such a child.
bool opened_after(Graph& graph, const Node& parent, const Node& node) {
  if (graph.info(node).owned) return false;
  const auto& children = parent.children();
  return std::any_of(children.begin(), children.end(), [&](const Child& child) {
    return child.name != "file" && Graph::reaches(*child.node, node);
  });
}

// The nodes, oldest first; one comes before the children that were opened for it after its file.
std::vector<NodePtr> in_order(Graph& graph) {
  std::vector<NodePtr> nodes = graph.nodes();
  std::reverse(nodes.begin(), nodes.end());
  for (size_t i = 0; i < nodes.size(); ++i) {
    size_t first = i;
    while (first > 0 && opened_after(graph, *nodes[i], *nodes[first - 1])) --first;
    std::rotate(nodes.begin() + static_cast<std::ptrdiff_t>(first),
                nodes.begin() + static_cast<std::ptrdiff_t>(i),
                nodes.begin() + static_cast<std::ptrdiff_t>(i + 1));
  }
  return nodes;
}

Task<Value> query_named_block_nodes(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const bool flat = flag_of(arguments, "flat", false);
  Value list = Value::array();
  std::vector<NodePtr> nodes = in_order(daemon.graph());
  std::reverse(nodes.begin(), nodes.end());
  for (const NodePtr& node : nodes) {
    Value one = co_await describe_or_name(daemon, node, flat);
    list.push_back(std::move(one));
  }
  co_return list;
}

// The daemon has no devices.
Task<Value> query_block(Daemon&, Value) { co_return Value::array(); }

// Nodes count no requests, as in QEMU: those are counted by devices, which there are none of.
Value statistics(const Node& node) {
  Value stats = Value::object();
  for (const std::string kind : {"rd", "wr", "zone_append", "unmap", "flush"}) {
    if (kind != "flush") {
      stats.set(kind + "_bytes", 0);
      stats.set(kind + "_merged", 0);
    }
    stats.set(kind + "_operations", 0);
    stats.set(kind + "_total_time_ns", 0);
    stats.set("failed_" + kind + "_operations", 0);
    stats.set("invalid_" + kind + "_operations", 0);
  }
  stats.set("wr_highest_offset", node.highest_written());
  stats.set("account_invalid", false);
  stats.set("account_failed", false);
  stats.set("timed_stats", Value::array());
  return stats;
}

Value describe_statistics(const Node& node) {
  Value shown = Value::object();
  shown.set("stats", statistics(node));
  shown.set("node-name", node.node_name());
  const std::string_view driver = node.driver().name();
  if (driver == "file" || driver == "host_device") {
    Value specific = Value::object();
    specific.set("driver", driver);
    for (const char* name : {"discard-nb-ok", "discard-nb-failed", "discard-bytes-ok"})
      specific.set(name, 0);
    shown.set("driver-specific", std::move(specific));
  }
  if (const Node* file = node.file()) shown.set("parent", describe_statistics(*file));
  return shown;
}

Task<Value> query_blockstats(Daemon& daemon, Value arguments) {
  Value list = Value::array();
  if (!flag_of(arguments, "query-nodes", false)) co_return list;
  const auto change = co_await daemon.graph().change();
  for (const NodePtr& node : in_order(daemon.graph())) list.push_back(describe_statistics(*node));
  co_return list;
}

// All threads serve every node: what is asked for is checked, and nothing has to be moved.
Task<Value> set_iothread(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const std::string name = text_of(arguments, "node-name");
  const NodePtr node = daemon.graph().find(name);
  if (node == nullptr) invalid("Failed to find node with node-name='" + name + "'");
  if (!daemon.graph().users(*node).empty() && !flag_of(arguments, "force", false))
    invalid("Node " + name +
            " is associated with a BlockBackend and could be in use (use force=true to override "
            "this check)");
  const std::string thread = text_of(arguments, "iothread");
  if (!arguments.find("iothread")->is_null() &&
      daemon.context().objects().find_as<Iothread>(thread) == nullptr)
    invalid("Cannot find iothread " + thread);
  co_return Value::object();
}

constexpr Command kNodeCommands[] = {
    {"blockdev-add", blockdev_add},
    {"blockdev-del", blockdev_del},
    {"query-named-block-nodes", query_named_block_nodes},
    {"query-block", query_block},
    {"query-blockstats", query_blockstats},
    {"x-blockdev-set-iothread", set_iothread},
};

}  // namespace

std::span<const Command> node_commands() { return kNodeCommands; }

}  // namespace cairn::daemon
