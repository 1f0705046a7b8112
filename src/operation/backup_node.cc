// Backups of the disks of a running daemon or emulator: it writes the file itself, or this program
// fetches the content (backup_pull.h).
#include <fmt/core.h>

#include "base/unfinished.h"
#include "operation/backup.h"
#include "operation/backup_daemon.h"
#include "operation/backup_pull.h"
#include "operation/backup_store.h"

namespace cairn::operation {
namespace {

// The daemon opens the part as its target and fills it.
Task<void> push_copy(BackupDaemon& daemon, NodeCopy& copy) {
  const bool full = copy.old_bitmap.empty();
  Value file = Value::object();
  file.set("driver", "file");
  file.set("filename", copy.part);
  Value target = Value::object();
  target.set("driver", "qcow2");
  target.set("node-name", daemon.target());
  target.set("file", std::move(file));
  // Whole clusters are written: what is below is not needed.
  if (!full) target.set("backing", Value());
  try {
    co_await daemon.ask("blockdev-add", std::move(target));
  } catch (Error& error) {
    throw error.context("the daemon cannot open '" + copy.part + "'")
        .hint("Where it has not the files of this machine, the disk can be fetched.", "pull");
  }
  Value backup = Value::object();
  backup.set("sync", full ? "full" : "bitmap");
  if (!full) {
    backup.set("bitmap", copy.old_bitmap);
    backup.set("bitmap-mode", "never");
  }
  if (copy.compress) backup.set("compress", true);
  co_await daemon.begin(copy, std::move(backup));
  co_await daemon.wait_job("the backup failed in the daemon", true);
}

class NodeBackup {
 public:
  NodeBackup(Caller& caller, const BackupOptions& plan, BackupStore& store)
      : caller_(caller), plan_(plan), store_(store), daemon_(caller, store.manifest()) {}

  BackupResult run() {
    BackupManifest& manifest = store_.manifest();
    const BackupEntry* last = manifest.backups.empty() ? nullptr : &manifest.backups.back();
    BackupEntry& entry = result_.entry;
    entry.id = manifest.next;
    entry.source = plan_.node + " of " + plan_.address;
    old_name_ = last != nullptr ? last->bitmap : std::string();
    new_name_ = manifest.bitmap_name(entry.id);
    caller_.run(look());
    choose(last);
    store_.begin();
    caller_.run(clear_bitmaps(old_name_));
    const BackupEntry* parent = entry.full ? nullptr : last;
    try {
      copy_.part = store_.make_part(caller_, entry.id, (entry.size + 511) / 512 * 512, parent);
      copy_.node = plan_.node;
      copy_.old_bitmap = old_name_;
      copy_.new_bitmap = new_name_;
      copy_.size = entry.size;
      copy_.compress = plan_.compress;
      caller_.phase("copy");
      caller_.run(copy());
      entry.time = copy_.time;
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
    result_.scratch = daemon_.scratch_left();
    return std::move(result_);
  }

 private:
  // Connects, ends what an earlier run left behind, and learns about the node.
  Task<void> look() {
    co_await daemon_.connect(plan_.address);
    co_await daemon_.clear();
    const Value nodes = co_await daemon_.ask("query-named-block-nodes");
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
    copy_.driver = text_of_member(*node, "drv");
    copy_.file = text_of_member(*node, "file");
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
        co_await daemon_.try_to("block-dirty-bitmap-remove", named_bitmap(plan_.node, name));
    }
  }

  // Copies, and leaves nothing in the daemon but the new bitmap; when it fails not even that.
  Task<void> copy() {
    const Unfinished left(daemon_.job(), Unfinished::Fate::kElsewhere);
    std::exception_ptr error;
    try {
      if (plan_.pull.wanted)
        co_await pull_copy(caller_, store_, daemon_, plan_, copy_);
      else
        co_await push_copy(daemon_, copy_);
    } catch (...) {
      error = std::current_exception();
    }
    // Whatever ended this, the daemon is left in order.
    daemon_.finish_in_any_case();
    std::exception_ptr unclear;
    try {
      co_await daemon_.clear();
      if (error)
        co_await daemon_.try_to("block-dirty-bitmap-remove",
                                named_bitmap(plan_.node, copy_.new_bitmap));
    } catch (const Error&) {
      unclear = std::current_exception();
    }
    // The daemon was not waited for.
    if (unclear && !error && caller_.cancel.requested())
      error = std::make_exception_ptr(Error(ErrorKind::kCancelled, "cancelled"));
    if (unclear) rethrow_with_rest(error ? error : unclear);
    if (error) std::rethrow_exception(error);
  }

  // FAILURE, and what the backup left in the daemon, which no longer answers.
  [[noreturn]] void rethrow_with_rest(const std::exception_ptr& failure) const {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      throw Error(error).hint("The daemon may still have " + daemon_.remains() +
                              "; the next backup to this directory removes them.");
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
  BackupDaemon daemon_;
  BackupResult result_;
  NodeCopy copy_;
  Value::Array bitmaps_;
  std::string old_name_, new_name_;
};

}  // namespace

BackupResult back_up_node(Caller& caller, const BackupOptions& options, BackupStore& store) {
  return NodeBackup(caller, options, store).run();
}

}  // namespace cairn::operation
