#include "daemon/transaction.h"

#include "block/graph/bitmaps.h"
#include "block/graph/snapshots.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

class AbortAction final : public GraphAction {
 public:
  Task<void> prepare() override {
    throw Error(ErrorKind::kCancelled, "Transaction aborted using Abort action");
    co_return;
  }
};

BitmapPlace place_of(const Value& data) { return {text_of(data, "node"), text_of(data, "name")}; }

std::unique_ptr<GraphAction> abort_action(Daemon&, const Value&) {
  return std::make_unique<AbortAction>();
}

std::unique_ptr<GraphAction> bitmap_add(Daemon& daemon, const Value& data) {
  BitmapRequest request;
  request.name = text_of(data, "name");
  const int64_t granularity = number_of(data, "granularity", -1);
  // None is the node's choice, 0 is a mistake.
  request.granularity = granularity < 0    ? 0
                        : granularity == 0 ? 1
                                           : static_cast<uint64_t>(granularity);
  request.persistent = flag_of(data, "persistent", false);
  request.enabled = !flag_of(data, "disabled", false);
  return bitmap_add_action(daemon.graph(), text_of(data, "node"), std::move(request));
}

std::unique_ptr<GraphAction> bitmap_remove(Daemon& daemon, const Value& data) {
  return bitmap_remove_action(daemon.graph(), place_of(data));
}

std::unique_ptr<GraphAction> bitmap_clear(Daemon& daemon, const Value& data) {
  return bitmap_clear_action(daemon.graph(), place_of(data));
}

std::unique_ptr<GraphAction> bitmap_enable(Daemon& daemon, const Value& data) {
  return bitmap_enable_action(daemon.graph(), place_of(data), true);
}

std::unique_ptr<GraphAction> bitmap_disable(Daemon& daemon, const Value& data) {
  return bitmap_enable_action(daemon.graph(), place_of(data), false);
}

std::unique_ptr<GraphAction> bitmap_merge(Daemon& daemon, const Value& data) {
  const std::string node = text_of(data, "node");
  std::vector<BitmapPlace> sources;
  for (const Value& one : *data.find("bitmaps")->get_if<Value::Array>()) {
    if (const auto* name = one.get_if<std::string>())
      sources.push_back({node, *name});
    else
      sources.push_back(place_of(one));
  }
  return bitmap_merge_action(daemon.graph(), {node, text_of(data, "target")}, std::move(sources));
}

std::unique_ptr<GraphAction> snapshot(Daemon& daemon, const Value& data) {
  return snapshot_action(daemon.graph(), text_of(data, "node"), text_of(data, "overlay"));
}

std::unique_ptr<GraphAction> snapshot_sync(Daemon& daemon, const Value& data) {
  SnapshotFile request;
  request.node = node_argument(data);
  request.file = text_of(data, "snapshot-file");
  request.overlay = text_of(data, "snapshot-node-name");
  if (data.find("format") != nullptr) request.format = text_of(data, "format");
  request.existing = text_of(data, "mode") == "existing";
  request.announce = daemon.options().show;
  return snapshot_file_action(daemon.graph(), std::move(request));
}

std::unique_ptr<GraphAction> internal_snapshot(Daemon& daemon, const Value& data) {
  return internal_snapshot_action(daemon.graph(), text_of(data, "device"), text_of(data, "name"));
}

constexpr ActionType kActions[] = {
    {"abort", abort_action},
    {"block-dirty-bitmap-add", bitmap_add},
    {"block-dirty-bitmap-clear", bitmap_clear},
    {"block-dirty-bitmap-disable", bitmap_disable},
    {"block-dirty-bitmap-enable", bitmap_enable},
    {"block-dirty-bitmap-merge", bitmap_merge},
    {"block-dirty-bitmap-remove", bitmap_remove},
    {"blockdev-snapshot", snapshot},
    {"blockdev-snapshot-internal-sync", internal_snapshot},
    {"blockdev-snapshot-sync", snapshot_sync},
};

}  // namespace

std::string node_argument(const Value& arguments) {
  if (arguments.find("node-name") != nullptr) return text_of(arguments, "node-name");
  throw Error(ErrorKind::kNotFound,
              "Cannot find device='" + text_of(arguments, "device") + "' nor node-name=''");
}

const ActionType* find_action(std::string_view name) {
  for (const ActionType& type : kActions)
    if (type.name == name) return &type;
  return nullptr;
}

Task<Value> run_command_as_action(Daemon& daemon, std::string_view type, Value data) {
  const auto change = co_await daemon.graph().change();
  co_await run_action(daemon.graph(), find_action(type)->make(daemon, data));
  co_return Value::object();
}

}  // namespace cairn::daemon
