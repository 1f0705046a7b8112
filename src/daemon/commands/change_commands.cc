#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/uuid.h"
#include "block/graph/active.h"
#include "block/graph/bitmaps.h"
#include "block/graph/disk.h"
#include "block/graph/reopen.h"
#include "block/graph/snapshots.h"
#include "crypto/hash.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "daemon/transaction.h"

namespace cairn::daemon {
namespace {

// A name as a part of a type.
template <size_t kBytes>
struct CommandName {
  char text[kBytes];
  constexpr CommandName(const char (&name)[kBytes]) { std::copy_n(name, kBytes, text); }
};

// A command that can be a step of a transaction as well.
template <CommandName kName>
Task<Value> as_action(Daemon& daemon, Value arguments) {
  return run_command_as_action(daemon, kName.text, std::move(arguments));
}

Task<Value> transaction(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const bool grouped = arguments.find("properties") != nullptr &&
                       text_of(*arguments.find("properties"), "completion-mode") == "grouped";
  const std::string group = grouped ? Uuid::random().text() : "";
  const auto together = std::make_shared<live::Transaction>();
  GraphActions actions;
  for (const Value& one : *arguments.find("actions")->get_if<Value::Array>()) {
    const std::string type = text_of(one, "type");
    if (type == "blockdev-backup" || type == "drive-backup") {
      actions.push_back(backup_action(daemon, *one.find("data"), type == "drive-backup",
                                      grouped ? together : std::make_shared<live::Transaction>(),
                                      group));
      continue;
    }
    const ActionType* action = find_action(type);
    if (action == nullptr) invalid("Transactions with '" + type + "' are not supported");
    if (grouped)
      invalid("Action '" + type +
              "' does not support transaction property completion-mode = grouped");
    actions.push_back(action->make(daemon, *one.find("data")));
  }
  co_await run_transaction(daemon.graph(), std::move(actions));
  co_return Value::object();
}

Task<Value> blockdev_reopen(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  Reopener reopener(daemon.graph());
  for (const Value& one : *arguments.find("options")->get_if<Value::Array>())
    reopener.add(Options::from_value(one));
  co_await reopener.run();
  // A child that was opened for its parent goes when that has another one.
  co_await daemon.graph().sweep();
  co_return Value::object();
}

Task<Value> block_resize(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  co_await resize_node(daemon.graph(), node_argument(arguments), number_of(arguments, "size", 0));
  co_return Value::object();
}

Task<Value> change_backing_file(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  co_await change_backing_name(daemon.graph(), text_of(arguments, "device"),
                               text_of(arguments, "image-node-name"),
                               text_of(arguments, "backing-file"));
  co_return Value::object();
}

Task<Value> set_write_threshold(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const std::string name = text_of(arguments, "node-name");
  const NodePtr node = daemon.graph().find(name);
  if (node == nullptr) throw Error(ErrorKind::kNotFound, "Device '" + name + "' not found");
  const auto threshold = static_cast<uint64_t>(number_of(arguments, "write-threshold", 0));
  node->bitmaps().set_threshold(threshold, [&daemon, name, threshold](uint64_t excess) {
    Value data = Value::object();
    data.set("node-name", name);
    data.set("amount-exceeded", excess);
    data.set("write-threshold", threshold);
    daemon.emit("BLOCK_WRITE_THRESHOLD", std::move(data));
  });
  co_return Value::object();
}

Task<Value> blockdev_change(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  co_await change_disks(daemon.graph(), text_of(arguments, "parent"), text_of(arguments, "child"),
                        text_of(arguments, "node"));
  co_return Value::object();
}

Task<Value> blockdev_set_active(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  co_await set_active(daemon.graph(), text_of(arguments, "node-name"),
                      flag_of(arguments, "active", true));
  co_return Value::object();
}

Task<Value> delete_internal(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const SnapshotRecord record =
      co_await delete_internal_snapshot(daemon.graph(), text_of(arguments, "device"),
                                        text_of(arguments, "id"), text_of(arguments, "name"));
  Value info = Value::object();
  if (record.icount) info.set("icount", *record.icount);
  info.set("vm-clock-nsec", record.vm_clock % 1'000'000'000);
  info.set("name", record.name);
  info.set("date-sec", record.date_seconds);
  info.set("date-nsec", record.date_nanoseconds);
  info.set("vm-clock-sec", record.vm_clock / 1'000'000'000);
  info.set("id", record.id);
  info.set("vm-state-size", record.vm_state_bytes);
  co_return info;
}

Task<Value> query_block_graph(Daemon& daemon, Value) {
  const auto change = co_await daemon.graph().change();
  co_return describe_graph(daemon.graph());
}

// The digest of the bits as images hold them, in whole words of 64 bits.
Task<Value> bitmap_sha256(Daemon& daemon, Value arguments) {
  const auto change = co_await daemon.graph().change();
  const DirtyBitmapPtr bitmap =
      find_bitmap(daemon.graph(), {text_of(arguments, "node"), text_of(arguments, "name")});
  const uint64_t bytes = bitmap->serialized_bytes();
  std::vector<std::byte> bits(align_up(bytes, sizeof(uint64_t)));
  bitmap->serialize(0, std::span(bits).first(bytes));
  std::byte sum[32];
  digest(HashAlgorithm::kSha256, bits, {}, sum);
  std::string text;
  for (const std::byte one : sum) text += fmt::format("{:02x}", static_cast<unsigned>(one));
  Value result = Value::object();
  result.set("sha256", text);
  co_return result;
}

constexpr Command kCommands[] = {
    {"block-dirty-bitmap-add", as_action<"block-dirty-bitmap-add">},
    {"block-dirty-bitmap-clear", as_action<"block-dirty-bitmap-clear">},
    {"block-dirty-bitmap-disable", as_action<"block-dirty-bitmap-disable">},
    {"block-dirty-bitmap-enable", as_action<"block-dirty-bitmap-enable">},
    {"block-dirty-bitmap-merge", as_action<"block-dirty-bitmap-merge">},
    {"block-dirty-bitmap-remove", as_action<"block-dirty-bitmap-remove">},
    {"blockdev-snapshot", as_action<"blockdev-snapshot">},
    {"blockdev-snapshot-internal-sync", as_action<"blockdev-snapshot-internal-sync">},
    {"blockdev-snapshot-sync", as_action<"blockdev-snapshot-sync">},
    {"block-set-write-threshold", set_write_threshold},
    {"block_resize", block_resize},
    {"blockdev-reopen", blockdev_reopen},
    {"blockdev-set-active", blockdev_set_active},
    {"blockdev-snapshot-delete-internal-sync", delete_internal},
    {"change-backing-file", change_backing_file},
    {"transaction", transaction},
    {"x-blockdev-change", blockdev_change},
    {"x-debug-block-dirty-bitmap-sha256", bitmap_sha256},
    {"x-debug-query-block-graph", query_block_graph},
};

}  // namespace

std::span<const Command> change_commands() { return kCommands; }

}  // namespace cairn::daemon
