// Backups of the disks of a running daemon or emulator, which writes the file itself.
#include <fmt/core.h>

#include <chrono>

#include "async/runtime.h"
#include "net/qmp_client.h"
#include "operation/backup.h"
#include "operation/backup_store.h"

namespace cairn::operation {
namespace {

using namespace std::chrono_literals;

constexpr auto kAnswerLimit = 60s;            // for a server to answer
constexpr auto kJobInterval = 100ms;          // between two looks at the job
constexpr uint64_t kNodeGranularity = 65536;  // the clusters of the files

Deadline answer_limit() { return std::chrono::steady_clock::now() + kAnswerLimit; }

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

class NodeBackup {
 public:
  NodeBackup(Caller& caller, const BackupOptions& plan, BackupStore& store)
      : caller_(caller), plan_(plan), store_(store) {}

  BackupResult run() {
    BackupManifest& manifest = store_.manifest();
    const BackupEntry* last = manifest.backups.empty() ? nullptr : &manifest.backups.back();
    BackupEntry& entry = result_.entry;
    entry.id = manifest.next;
    entry.source = plan_.node + " of " + plan_.address;
    job_ = manifest.bitmap_prefix() + "job";
    target_ = "cairn-" + manifest.id.substr(0, 8);  // names of nodes are short
    old_name_ = last != nullptr ? last->bitmap : std::string();
    new_name_ = manifest.bitmap_name(entry.id);
    caller_.run(look());
    choose(last);
    caller_.run(clear_bitmaps(old_name_));
    const BackupEntry* parent = entry.full ? nullptr : last;
    try {
      part_ = store_.make_part(caller_, entry.id, (entry.size + 511) / 512 * 512, parent);
      caller_.phase("copy");
      caller_.run(copy());
      caller_.phase("checksum");
      store_.seal_part(caller_, entry);
      store_.publish_part(entry.id);
      entry.bitmap = new_name_;
      if (parent != nullptr) result_.parent = parent->id;
      manifest.next = entry.id + 1;
      manifest.backups.push_back(entry);
      store_.commit();
    } catch (...) {
      store_.drop_part(entry.id);
      throw;
    }
    forget_old();
    return std::move(result_);
  }

 private:
  Task<Value> ask(std::string command, Value arguments = Value::object()) {
    Value result =
        co_await client_->execute(std::move(command), std::move(arguments), answer_limit());
    co_return result;
  }
  // The same where it may fail: there may be nothing to do.
  Task<void> try_to(std::string command, Value arguments) {
    try {
      co_await ask(std::move(command), std::move(arguments));
    } catch (const QmpRefusal&) {
      // Then there was nothing.
    }
  }

  // Connects, ends what an earlier run left behind, and learns about the node.
  Task<void> look() {
    const SocketAddress address = QmpClient::parse_address(plan_.address);
    client_ = co_await QmpClient::connect(address, &caller_.cancel, answer_limit());
    co_await end_job();
    const Value nodes = co_await ask("query-named-block-nodes");
    const auto* list = nodes.get_if<Value::Array>();
    if (list == nullptr) throw Error(ErrorKind::kIo, "the daemon's list of nodes is none");
    const Value* node = nullptr;
    std::string known;
    for (const Value& one : *list) {
      const std::string name = text_of_member(one, "node-name");
      known += (known.empty() ? "" : ", ") + name;
      if (name == plan_.node) node = &one;
    }
    if (node == nullptr)
      throw Error(ErrorKind::kNotFound, "there is no node '" + plan_.node + "'")
          .hint("The nodes there are: " + known);
    driver_ = text_of_member(*node, "drv");
    result_.entry.size = count_of_member(node->find("image"), "virtual-size");
    if (const Value* bitmaps = node->find("dirty-bitmaps"); bitmaps && bitmaps->is_array())
      bitmaps_ = *bitmaps->get_if<Value::Array>();
  }

  void choose(const BackupEntry* last) {
    BackupEntry& entry = result_.entry;
    entry.full = true;
    entry.method = "full";
    const Value* old = nullptr;
    for (const Value& bitmap : bitmaps_)
      if (!old_name_.empty() && text_of_member(bitmap, "name") == old_name_) old = &bitmap;
    if (auto reason = reason_for_full(store_.manifest(), plan_.full)) {
      result_.reason = *reason;
    } else if (old == nullptr) {
      result_.reason = fmt::format(
          "the node has no record of the changes since backup {}: the daemon was restarted, or "
          "the bitmap removed",
          last->id);
    } else if (flag_of_member(*old, "inconsistent") || !flag_of_member(*old, "recording")) {
      result_.reason = "the bitmap of the changes is inconsistent or disabled";
    } else if (entry.size < last->size) {
      result_.reason = "the disk became smaller";
    } else {
      entry.full = false;
      entry.method = "bitmap";
    }
    if (entry.full) old_name_.clear();
  }

  // Removes the bitmaps of this directory but KEPT.
  Task<void> clear_bitmaps(std::string kept) {
    for (const Value& bitmap : bitmaps_) {
      const std::string name = text_of_member(bitmap, "name");
      if (name.starts_with(store_.manifest().bitmap_prefix()) && name != kept)
        co_await try_to("block-dirty-bitmap-remove", named_bitmap(plan_.node, name));
    }
  }

  // A job of this name is ended, and its target goes.
  Task<void> end_job() {
    Value id = Value::object();
    id.set("id", job_);
    co_await try_to("job-cancel", id);
    const Deadline limit = answer_limit();
    while (std::chrono::steady_clock::now() < limit) {
      const std::optional<Value> job = co_await find_job();
      if (!job || text_of_member(*job, "status") == "concluded") break;
      co_await sleep_for(kJobInterval);
    }
    co_await try_to("job-dismiss", id);
    Value node = Value::object();
    node.set("node-name", target_);
    co_await try_to("blockdev-del", node);
  }

  Task<std::optional<Value>> find_job() {
    const Value jobs = co_await ask("query-jobs");
    if (const auto* list = jobs.get_if<Value::Array>())
      for (const Value& job : *list)
        if (text_of_member(job, "id") == job_) co_return job;
    co_return std::nullopt;
  }

  // Copies, and leaves nothing in the daemon but the new bitmap; when it fails not even that.
  Task<void> copy() {
    std::exception_ptr error;
    try {
      co_await start();
      co_await wait();
    } catch (...) {
      error = std::current_exception();
    }
    // Whatever ended this, the daemon is left in order.
    client_->set_cancel(nullptr);
    try {
      co_await end_job();
      if (error) co_await try_to("block-dirty-bitmap-remove", named_bitmap(plan_.node, new_name_));
    } catch (const Error&) {
      // The next backup clears what is left.
      if (!error) error = std::current_exception();
    }
    if (error) std::rethrow_exception(error);
  }

  Task<void> start() {
    Value file = Value::object();
    file.set("driver", "file");
    file.set("filename", part_);
    Value target = Value::object();
    target.set("driver", "qcow2");
    target.set("node-name", target_);
    target.set("file", std::move(file));
    // Whole clusters are written: what is below is not needed.
    if (!result_.entry.full) target.set("backing", Value());
    try {
      co_await ask("blockdev-add", std::move(target));
    } catch (Error& error) {
      throw error.context("the daemon cannot open '" + part_ + "'");
    }
    result_.entry.time = backup_time_now();
    if (driver_ != "qcow2") {
      co_await start_transaction(false);
      co_return;
    }
    // An image of version 2 keeps no bitmaps.
    bool refused = false;
    try {
      co_await start_transaction(true);
    } catch (const QmpRefusal&) {
      refused = true;
    }
    if (refused) co_await start_transaction(false);
  }

  // The new bitmap begins at the same moment as the copy.
  Task<void> start_transaction(bool persistent) {
    Value bitmap = named_bitmap(plan_.node, new_name_);
    bitmap.set("granularity", kNodeGranularity);
    bitmap.set("persistent", persistent);
    Value backup = Value::object();
    backup.set("job-id", job_);
    backup.set("device", plan_.node);
    backup.set("target", target_);
    backup.set("sync", result_.entry.full ? "full" : "bitmap");
    if (!result_.entry.full) {
      backup.set("bitmap", old_name_);
      backup.set("bitmap-mode", "never");
    }
    if (plan_.compress) backup.set("compress", true);
    backup.set("auto-dismiss", false);
    Value actions = Value::array();
    actions.push_back(transaction_action("block-dirty-bitmap-add", std::move(bitmap)));
    actions.push_back(transaction_action("blockdev-backup", std::move(backup)));
    Value arguments = Value::object();
    arguments.set("actions", std::move(actions));
    co_await ask("transaction", std::move(arguments));
  }

  Task<void> wait() {
    while (true) {
      const std::optional<Value> job = co_await find_job();
      if (!job) throw Error(ErrorKind::kIo, "somebody else ended the job of the backup");
      caller_.progress(count_of_member(&*job, "current-progress"),
                       count_of_member(&*job, "total-progress"));
      if (const std::string error = text_of_member(*job, "error"); !error.empty())
        throw Error(ErrorKind::kIo, "the backup failed in the daemon: " + error);
      if (text_of_member(*job, "status") == "concluded") co_return;
      co_await sleep_for(kJobInterval);
    }
  }

  void forget_old() {
    try {
      caller_.run(clear_bitmaps(new_name_));
    } catch (const Error& error) {
      caller_.warn("The bitmap '" + old_name_ + "' stays in the daemon: " + error.message());
    }
  }

  Caller& caller_;
  const BackupOptions& plan_;
  BackupStore& store_;
  BackupResult result_;
  std::unique_ptr<QmpClient> client_;
  std::string job_, target_;  // their names in the daemon
  std::string part_;
  std::string driver_;  // of the node
  Value::Array bitmaps_;
  std::string old_name_, new_name_;
};

}  // namespace

BackupResult back_up_node(Caller& caller, const BackupOptions& options, BackupStore& store) {
  return NodeBackup(caller, options, store).run();
}

}  // namespace cairn::operation
