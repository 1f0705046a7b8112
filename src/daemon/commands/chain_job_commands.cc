#include "block/graph/reopen.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "daemon/qmp_error.h"
#include "job/live/commit.h"
#include "job/live/mirror.h"
#include "job/live/stream.h"

// Jobs that shorten a backing chain.
namespace cairn::daemon {
namespace {

std::optional<std::string> optional_text(const Value& arguments, std::string_view name) {
  if (arguments.find(name) == nullptr) return std::nullopt;
  return text_of(arguments, name);
}

// What the chain of DEVICE is copied down to; null: all of it is.
NodePtr stream_base(Graph& graph, const Node& device, const Value& arguments) {
  const std::string above = text_of(arguments, "device");
  if (const auto file = optional_text(arguments, "base")) {
    NodePtr base = find_file_in_chain(device, *file);
    if (base == nullptr) invalid("Can't find '" + *file + "' in the backing chain");
    return base;
  }
  if (const auto name = optional_text(arguments, "base-node")) {
    NodePtr base = graph.get(*name);
    const auto layers = live::layers_above(device, base.get());
    if (!layers || *layers == 0)
      invalid("Node '" + *name + "' is not a backing image of '" + above + "'");
    return base;
  }
  if (const auto name = optional_text(arguments, "bottom")) {
    const NodePtr bottom = graph.get(*name);
    if (!live::layers_above(device, bottom.get()))
      invalid("Node '" + *name + "' is not in a chain starting from '" + above + "'");
    Node* below = live::next_below(*bottom);
    return below == nullptr ? nullptr : below->shared_from_this();
  }
  return nullptr;
}

Task<Value> block_stream(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  const bool base = arguments.find("base") != nullptr;
  const bool base_node = arguments.find("base-node") != nullptr;
  const bool bottom = arguments.find("bottom") != nullptr;
  if (base && base_node) invalid("'base' and 'base-node' cannot be specified at the same time");
  if (base && bottom) invalid("'base' and 'bottom' cannot be specified at the same time");
  if (base_node && bottom) invalid("'bottom' and 'base-node' cannot be specified at the same time");
  const std::string name = text_of(arguments, "device");
  live::JobOptions options = job_options(arguments);
  live::StreamRequest request;
  request.device = device_node(graph, name);
  request.base = stream_base(graph, *request.device, arguments);
  request.backing_file = optional_text(arguments, "backing-file");
  // As in QEMU, where "bottom" is no base, though something stays below.
  if (bottom && request.backing_file)
    invalid("backing file specified, but streaming the entire chain");
  request.filter_name = text_of(arguments, "filter-node-name");
  request.on_error = on_error(arguments, "on-error");
  request.device_was_read_only = request.device->read_only();
  live::StreamJob::check(graph, request);
  check_filter_name(graph, request.filter_name, "Could not create node");
  daemon.jobs().check_id(options.id);
  request.device = co_await reopen_as(graph, request.device, true);
  co_await live::launch(daemon.jobs(), std::make_shared<live::StreamJob>(std::move(options), graph,
                                                                         std::move(request)));
  co_return Value::object();
}

struct CommitNodes {
  NodePtr device;
  NodePtr top;
  NodePtr base;
};

// The nodes that block-commit names.
CommitNodes commit_nodes(Graph& graph, const Value& arguments) {
  const auto base_name = optional_text(arguments, "base-node");
  const auto base_file = optional_text(arguments, "base");
  const auto top_name = optional_text(arguments, "top-node");
  const auto top_file = optional_text(arguments, "top");
  if (top_name && top_file) invalid("'top-node' and 'top' are mutually exclusive");
  if (base_name && base_file) invalid("'base-node' and 'base' are mutually exclusive");
  CommitNodes nodes;
  const std::string device = text_of(arguments, "device");
  nodes.device = graph.find(device);
  if (nodes.device == nullptr) throw QmpError::no_device("Device '" + device + "' not found");
  check_root(graph, *nodes.device);
  nodes.top = nodes.device;
  if (top_name) {
    nodes.top = graph.get(*top_name);
    if (!live::layers_above(*nodes.device, nodes.top.get()))
      invalid("'" + *top_name + "' is not in this backing file chain");
  } else if (top_file && *top_file != live::through_filters(*nodes.device).filename()) {
    nodes.top = find_file_in_chain(*nodes.device, *top_file);
    if (nodes.top == nullptr) invalid("Top image file " + *top_file + " not found");
  }
  if (base_name) {
    nodes.base = graph.get(*base_name);
  } else if (base_file) {
    nodes.base = find_file_in_chain(*nodes.top, *base_file);
    if (nodes.base == nullptr) invalid("Can't find '" + *base_file + "' in the backing chain");
  } else {
    Node* at = nodes.top.get();
    for (Node* below = at; below != nullptr; below = live::next_below(*below)) {
      const auto above = graph.parents(*below);
      if (below == at || std::any_of(above.begin(), above.end(),
                                     [&](const Node* one) { return one->backing() == below; }))
        nodes.base = below->shared_from_this();
    }
  }
  if (nodes.base == nodes.top) invalid("cannot commit an image into itself");
  const std::string& base = nodes.base->node_name();
  if (!live::layers_above(*nodes.top, nodes.base.get()))
    invalid("'" + base + "' is not in this backing file chain");
  return nodes;
}

Task<Value> block_commit(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  CommitNodes nodes = commit_nodes(graph, arguments);
  live::JobOptions options = job_options(arguments);
  const bool active = nodes.top == nodes.device;
  const auto backing_file = optional_text(arguments, "backing-file");
  if (active && backing_file) invalid("'backing-file' specified, but 'top' is the active layer");
  for (Node* at = nodes.device.get(); at != nullptr; at = live::next_below(*at)) {
    graph.check_free(*at);
    if (at == nodes.base.get()) break;
  }
  const std::string filter_name = text_of(arguments, "filter-node-name");
  check_filter_name(graph, filter_name);
  daemon.jobs().check_id(options.id);
  const bool read_only = nodes.base->read_only();
  nodes.base = co_await reopen_as(graph, nodes.base, true);
  std::shared_ptr<live::DiskJob> job;
  if (active) {
    live::MirrorRequest request;
    request.source = nodes.device;
    request.target = nodes.base;
    request.target_was_read_only = read_only;
    request.remaining = daemon.job_recipes().take_left(options.id).remaining;
    request.store = daemon.progress_store();
    request.filter_name = filter_name;
    request.on_source_error = request.on_target_error = on_error(arguments, "on-error");
    job = std::make_shared<live::MirrorJob>(live::JobType::kCommit, std::move(options), graph,
                                            std::move(request));
  } else {
    live::CommitRequest request;
    request.top = nodes.top;
    request.base = nodes.base;
    request.base_was_read_only = read_only;
    request.backing_file = backing_file;
    request.filter_name = filter_name;
    request.on_error = on_error(arguments, "on-error");
    job = std::make_shared<live::CommitJob>(std::move(options), graph, std::move(request));
  }
  nodes = {};
  co_await live::launch(daemon.jobs(), std::move(job));
  co_return Value::object();
}

constexpr Command kChainJobCommands[] = {
    {"block-stream", block_stream},
    {"block-commit", block_commit},
};

}  // namespace

std::span<const Command> chain_job_commands() { return kChainJobCommands; }

}  // namespace cairn::daemon
