#include "operation/backup_daemon.h"

#include <chrono>
#include <utility>

#include "async/async.h"
#include "async/runtime.h"
#include "platform/file.h"

namespace cairn::operation {
namespace {

using namespace std::chrono_literals;

constexpr auto kAnswerLimit = 60s;  // for a server to answer
// How long after an interrupt the daemon may take to end what it does for a backup.
constexpr auto kLastMoment = 850ms;
constexpr auto kInterval = 100ms;             // between two looks at a copy
constexpr auto kShortInterval = 20ms;         // the same at what ends
constexpr uint64_t kNodeGranularity = 65536;  // the clusters of the files
// A node that says that the NBD server is one of ours: the daemon forgets both at the same time.
constexpr const char* kServerMark = "cairn-nbd-server";

Deadline answer_limit() { return std::chrono::steady_clock::now() + kAnswerLimit; }

Value with_member(const char* name, std::string value) {
  Value object = Value::object();
  object.set(name, std::move(value));
  return object;
}

}  // namespace

std::string text_of_member(const Value& object, std::string_view name) {
  const Value* value = object.find(name);
  const auto* text = value != nullptr ? value->get_if<std::string>() : nullptr;
  return text != nullptr ? *text : std::string();
}

bool flag_of_member(const Value& object, std::string_view name) {
  const Value* value = object.find(name);
  const auto* flag = value != nullptr ? value->get_if<bool>() : nullptr;
  return flag != nullptr && *flag;
}

uint64_t count_of_member(const Value* object, std::string_view name) {
  const Value* value = object != nullptr ? object->find(name) : nullptr;
  const auto* number = value != nullptr ? value->get_if<int64_t>() : nullptr;
  return number != nullptr && *number > 0 ? static_cast<uint64_t>(*number) : 0;
}

Value named_bitmap(const std::string& node, const std::string& name) {
  Value bitmap = Value::object();
  bitmap.set("node", node);
  bitmap.set("name", name);
  return bitmap;
}

Value transaction_action(const char* type, Value data) {
  Value action = Value::object();
  action.set("type", type);
  action.set("data", std::move(data));
  return action;
}

// Names of nodes are short.
BackupDaemon::BackupDaemon(Caller& caller, const BackupManifest& manifest)
    : caller_(caller),
      job_(manifest.bitmap_prefix() + "job"),
      target_("cairn-" + manifest.id.substr(0, 8)),
      scratch_name_("cairn-" + manifest.id + ".scratch") {}

Task<void> BackupDaemon::connect(std::string address) {
  const SocketAddress where = QmpClient::parse_address(address);
  client_ = co_await QmpClient::connect(where, &caller_.cancel, answer_limit());
}

void BackupDaemon::finish_in_any_case() { client_->finish_within(kLastMoment); }

Task<Value> BackupDaemon::ask(std::string command, Value arguments) {
  Value result =
      co_await client_->execute(std::move(command), std::move(arguments), answer_limit());
  co_return result;
}

Task<bool> BackupDaemon::try_to(std::string command, Value arguments) {
  try {
    co_await ask(std::move(command), std::move(arguments));
  } catch (const QmpRefusal&) {
    co_return false;
  }
  co_return true;
}

Task<void> BackupDaemon::note_server() {
  Value mark = with_member("driver", "null-co");
  mark.set("node-name", kServerMark);
  co_await try_to("blockdev-add", std::move(mark));
}

Task<std::optional<Value>> BackupDaemon::find_job() {
  const Value jobs = co_await ask("query-jobs");
  if (const auto* list = jobs.get_if<Value::Array>())
    for (const Value& job : *list)
      if (text_of_member(job, "id") == job_) co_return job;
  co_return std::nullopt;
}

Task<void> BackupDaemon::wait_job(std::string what, bool progress) {
  while (true) {
    const std::optional<Value> job = co_await find_job();
    if (!job) throw Error(ErrorKind::kIo, "somebody else ended the job of the backup");
    if (progress)
      caller_.progress(count_of_member(&*job, "current-progress"),
                       count_of_member(&*job, "total-progress"));
    if (const std::string error = text_of_member(*job, "error"); !error.empty())
      throw Error(ErrorKind::kIo, what + ": " + error);
    if (text_of_member(*job, "status") == "concluded") co_return;
    co_await sleep_for(kInterval);
  }
}

Task<void> BackupDaemon::create(Value options) {
  Value arguments = with_member("job-id", job_);
  arguments.set("options", std::move(options));
  co_await ask("blockdev-create", std::move(arguments));
  co_await wait_job("the daemon cannot make the file for old data", false);
  co_await ask("job-dismiss", with_member("id", job_));
}

Task<void> BackupDaemon::begin(NodeCopy& copy, Value backup, std::vector<Value> more) {
  copy.time = backup_time_now();
  if (copy.driver != "qcow2") {
    co_await begin_with(copy, std::move(backup), std::move(more), false);
    co_return;
  }
  // An image of version 2 keeps no bitmaps.
  bool refused = false;
  try {
    co_await begin_with(copy, backup, more, true);
  } catch (const QmpRefusal&) {
    refused = true;
  }
  if (refused) co_await begin_with(copy, std::move(backup), std::move(more), false);
}

Task<void> BackupDaemon::begin_with(NodeCopy& copy, Value backup, std::vector<Value> more,
                                    bool persistent) {
  Value bitmap = named_bitmap(copy.node, copy.new_bitmap);
  bitmap.set("granularity", kNodeGranularity);
  bitmap.set("persistent", persistent);
  backup.set("job-id", job_);
  backup.set("device", copy.node);
  backup.set("target", target_);
  backup.set("auto-dismiss", false);
  Value actions = Value::array();
  actions.push_back(transaction_action("block-dirty-bitmap-add", std::move(bitmap)));
  for (Value& action : more) actions.push_back(std::move(action));
  actions.push_back(transaction_action("blockdev-backup", std::move(backup)));
  Value arguments = Value::object();
  arguments.set("actions", std::move(actions));
  co_await ask("transaction", std::move(arguments));
}

std::string BackupDaemon::remains() const {
  std::string text = "the job '" + job_ + "' and the node '" + target_ + "'";
  if (!scratch_.empty()) text += ", and data in '" + scratch_ + "'";
  return text;
}

// A backup that was killed has left the name of the file in the daemon alone.
Task<void> BackupDaemon::find_scratch() {
  const Value nodes = co_await ask("query-named-block-nodes");
  if (const auto* list = nodes.get_if<Value::Array>())
    for (const Value& node : *list)
      if (text_of_member(node, "node-name") == scratch_node())
        scratch_ = text_of_member(node, "file");
}

Task<void> BackupDaemon::clear() {
  if (scratch_.empty()) co_await find_scratch();
  co_await end_export();
  co_await end_server();
  co_await end_job();
  co_await try_to("blockdev-del", with_member("node-name", target_));
  co_await try_to("blockdev-del", with_member("node-name", scratch_node()));
  co_await drop_scratch();
}

// No command removes a file: it gives its space back. Where the daemon has the files of this
// machine, the name leads to it here as well; nothing else has that name, and it is empty.
Task<void> BackupDaemon::drop_scratch() {
  scratch_left_.clear();
  if (scratch_.empty()) co_return;
  const std::string path = std::exchange(scratch_, {});
  Value file = with_member("driver", "file");
  file.set("filename", path);
  file.set("size", uint64_t{0});
  co_await create(std::move(file));
  const auto remove = [&] {
    const auto found = platform::link_status(path);
    return path.ends_with("/" + scratch_name_) && found && found->is_regular() &&
           found->size == 0 && platform::remove(path) == 0;
  };
  const bool removed = co_await run_blocking(remove);
  if (!removed) scratch_left_ = path;
}

Task<void> BackupDaemon::end_export() {
  Value which = with_member("id", target_);
  which.set("mode", "hard");
  const bool begun = co_await try_to("block-export-del", std::move(which));
  if (!begun) co_return;
  for (const Deadline limit = answer_limit(); std::chrono::steady_clock::now() < limit;) {
    const Value exports = co_await ask("query-block-exports");
    bool there = false;
    if (const auto* list = exports.get_if<Value::Array>())
      for (const Value& one : *list) there = there || text_of_member(one, "id") == target_;
    if (!there) co_return;
    co_await sleep_for(kShortInterval);
  }
}

// The mark goes first: a server of somebody else must not be ended because of it.
Task<void> BackupDaemon::end_server() {
  const Value exports = co_await ask("query-block-exports");
  if (const auto* list = exports.get_if<Value::Array>())
    for (const Value& one : *list)
      if (text_of_member(one, "type") == "nbd") co_return;
  const bool ours = co_await try_to("blockdev-del", with_member("node-name", kServerMark));
  if (ours) co_await try_to("nbd-server-stop", Value::object());
}

Task<void> BackupDaemon::end_job() {
  co_await try_to("job-cancel", with_member("id", job_));
  bool ended = false;
  for (const Deadline limit = answer_limit(); std::chrono::steady_clock::now() < limit;) {
    const std::optional<Value> job = co_await find_job();
    ended = !job || text_of_member(*job, "status") == "concluded";
    if (ended) break;
    co_await sleep_for(kShortInterval);
  }
  // Its nodes stay as well, as its caller then says.
  if (!ended) throw Error(ErrorKind::kIo, "the job '" + job_ + "' of the daemon does not end");
  co_await try_to("job-dismiss", with_member("id", job_));
}

}  // namespace cairn::operation
