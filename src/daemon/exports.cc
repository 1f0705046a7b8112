#include "daemon/exports.h"

#include <algorithm>
#include <cctype>

#include "daemon/commands/commands.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

const std::vector<ExportType>& export_types() {
  static const std::vector<ExportType> types = {nbd_export_type(), fuse_export_type(),
                                                vhost_user_export_type()};
  return types;
}

const ExportType& type_of(const std::string& name) {
  for (const ExportType& type : export_types())
    if (type.name == name) return type;
  invalid("Block export type '" + name + "' is not available");
}

bool is_id(std::string_view id) {
  return !id.empty() && isalpha(static_cast<unsigned char>(id[0])) != 0 &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) {
           return isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
         });
}

}  // namespace

Task<RootPtr> Exports::attach(const ExportType& type, const Value& arguments, bool writable,
                              std::weak_ptr<Entry> entry) {
  const NodePtr node = daemon_.graph().get(text_of(arguments, "node-name"));
  if (writable && node->read_only()) invalid("Cannot export read-only node as writable");
  NodeUse use;
  use.takes = Permissions::kConsistentRead;
  if (writable) use.takes |= Permissions::kWrite;
  use.shares = type.follows_size ? Permissions::kAll : Permissions::kAll & ~Permissions::kResize;
  use.resized = [entry] {
    const auto live = entry.lock();
    if (live && live->running) live->running->resized();
  };
  if (const auto log = daemon_.options().log)
    use.failed = [log, id = text_of(arguments, "id")](RequestKind kind, uint64_t offset,
                                                      const Error& error) {
      Value members = event_members("export", id);
      members.set("request", to_string(kind));
      members.set("offset", offset);
      members.set("message", error.message());
      log->write_seldom("export " + id, "error", "request-failed", std::move(members));
    };
  if (writable && type.resizes) {
    use.takes |= Permissions::kResize;
    use.shares = Permissions::kAll;
  }
  RootPtr root = co_await daemon_.graph().attach(node, use);
  co_return root;
}

Task<void> Exports::add(Value arguments) {
  const std::string id = text_of(arguments, "id");
  if (!is_id(id)) invalid("Invalid block export id");
  for (const auto& entry : all_)
    if (entry->running->id() == id) invalid("Block export id '" + id + "' is already in use");
  const ExportType& type = type_of(text_of(arguments, "type"));
  const bool writable = flag_of(arguments, "writable", false);
  if (flag_of(arguments, "allow-inactive", false) && type.name != "nbd")
    invalid("Export type does not support inactive exports");
  auto entry = std::make_shared<Entry>();
  if (const std::string thread = text_of(arguments, "iothread"); !thread.empty())
    entry->thread = find_iothread(daemon_.context(), thread);
  const auto change = co_await daemon_.graph().change();
  daemon_.graph().get(text_of(arguments, "node-name"));
  co_await type.check(daemon_, arguments);
  const RootPtr root = co_await attach(type, arguments, writable, entry);
  co_await on_failure(
      [&]() -> Task<void> {
        ExportRequest request{.daemon = daemon_,
                              .id = id,
                              .root = root,
                              .writable = writable,
                              .arguments = arguments};
        entry->running = co_await type.make(std::move(request));
      },
      [&] { return daemon_.graph().detach(root); });
  entry->arguments = std::move(arguments);
  all_.push_back(std::move(entry));
}

// Waits for the end of an export, says so and forgets it.
Task<void> Exports::end(std::shared_ptr<Entry> entry) {
  co_await entry->running->ended();
  {
    const auto change = co_await daemon_.graph().change();
    co_await daemon_.graph().detach(entry->running->root());
  }
  std::erase(all_, entry);
  if (!entry->reported) co_return;
  Value data = Value::object();
  data.set("id", entry->running->id());
  daemon_.emit("BLOCK_EXPORT_DELETED", std::move(data));
}

Task<void> Exports::remove(std::string id, bool hard) {
  const auto found = std::find_if(all_.begin(), all_.end(),
                                  [&](const auto& one) { return one->running->id() == id; });
  if (found == all_.end()) invalid("Export '" + id + "' is not found");
  const std::shared_ptr<Entry> entry = *found;
  if (!hard && !entry->ending) co_await entry->running->await_leaving();
  if (entry->ending) invalid("Export '" + id + "' is already shutting down");
  const bool used = entry->running->in_use();
  if (used && !hard) invalid("export '" + id + "' still in use");
  entry->ending = true;
  entry->running->request_shutdown();
  if (used)
    daemon_.spawn(end(entry));
  else
    co_await end(entry);
}

Task<void> Exports::await_leaving() {
  const auto before = all_;
  for (const auto& entry : before) co_await entry->running->await_leaving();
}

Task<void> Exports::remove_all(std::function<bool(const LiveExport&)> doomed, bool reported) {
  const auto before = all_;
  std::vector<std::shared_ptr<Entry>> mine;
  for (auto one = before.rbegin(); one != before.rend(); ++one) {
    if ((*one)->ending || !doomed(*(*one)->running)) continue;
    (*one)->ending = true;
    (*one)->reported = reported;
    (*one)->running->request_shutdown();
    mine.push_back(*one);
  }
  for (const auto& entry : mine) co_await end(entry);
  // Those that were removed by force before may still wait for their clients.
  const auto left = [&] {
    return std::any_of(all_.begin(), all_.end(),
                       [&](const auto& entry) { return entry->ending && doomed(*entry->running); });
  };
  while (left()) co_await sleep_for(std::chrono::milliseconds(2));
}

Value Exports::describe() const {
  Value list = Value::array();
  for (auto one = all_.rbegin(); one != all_.rend(); ++one) {
    const LiveExport& running = *(*one)->running;
    Value shown = Value::object();
    shown.set("node-name", running.root()->node()->node_name());
    shown.set("shutting-down", (*one)->ending);
    shown.set("type", running.type());
    shown.set("id", running.id());
    list.push_back(std::move(shown));
  }
  return list;
}

}  // namespace cairn::daemon
