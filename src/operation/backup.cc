#include "operation/backup.h"

#include <fmt/core.h>

#include "async/finally.h"
#include "block/capabilities/bitmap_store.h"
#include "block/driver.h"
#include "operation/backup_part.h"
#include "operation/backup_store.h"
#include "operation/nodes.h"

namespace cairn::operation {
namespace {

constexpr uint64_t kBackupGranularity = 65536;  // the clusters of the files
// What is read through many layers is read slowly, and one damaged file loses all after it.
constexpr size_t kMostChain = 128;

uint64_t whole_sectors(uint64_t bytes) { return (bytes + 511) / 512 * 512; }

// Of one image that nobody else writes.
class ImageBackup {
 public:
  ImageBackup(Caller& caller, const BackupOptions& plan, BackupStore& store)
      : caller_(caller), plan_(plan), store_(store) {}

  BackupResult run() {
    BackupManifest& manifest = store_.manifest();
    const BackupEntry* last = manifest.backups.empty() ? nullptr : &manifest.backups.back();
    BackupEntry& entry = result_.entry;
    entry.id = manifest.next;
    entry.source = shown_name(plan_.image);
    old_name_ = last != nullptr ? last->bitmap : std::string();
    caller_.run(look());
    choose(last);
    if (last != nullptr) warn_of_another(last->source);
    const std::string new_name = manifest.bitmap_name(entry.id);
    store_.begin();
    if (keeps_bitmap_) caller_.run(change_bitmaps(old_name_, new_name));
    entry.time = backup_time_now();
    const BackupEntry* parent = entry.full ? nullptr : last;
    try {
      const std::string part =
          store_.make_part(caller_, entry.id, whole_sectors(entry.size), parent);
      caller_.phase("copy");
      caller_.run(copy(part));
      caller_.phase("checksum");
      store_.seal_part(caller_, entry);
      store_.publish_part(entry.id);
    } catch (...) {
      store_.drop_part(entry.id);
      throw;
    }
    if (keeps_bitmap_) entry.bitmap = new_name;
    if (parent != nullptr) result_.parent = parent->id;
    manifest.next = entry.id + 1;
    manifest.backups.push_back(entry);
    store_.commit();
    if (keeps_bitmap_ && !old_name_.empty()) forget_old(new_name);
    return std::move(result_);
  }

 private:
  // Names of nodes say nothing about the image.
  void warn_of_another(const std::string& before) const {
    const std::string& now = result_.entry.source;
    const auto last_part = [](const std::string& name) { return name.substr(name.rfind('/') + 1); };
    if (last_part(before) == last_part(now) || before.find(" of ") != std::string::npos) return;
    caller_.warn("the last backup is of '" + before + "': where '" + now +
                 "' is another disk, give it a directory of its own, as old backups are removed "
                 "whatever disk they are of");
  }

  // What the image can do, and what is known of it.
  Task<void> look() {
    OpenRequest request = plan_.image;
    request.flags.unshare_write = true;
    NodePtr node = co_await open_node(caller_.context, std::move(request));
    result_.entry.size = node->length();
    keeps_bitmap_ = plan_.bitmap && supports_bitmaps(*node);
    const DirtyBitmapPtr old = old_name_.empty() ? nullptr : node->bitmaps().find(old_name_);
    found_ = old != nullptr;
    usable_ = found_ && !old->inconsistent() && old->enabled();
    inconsistent_ = found_ && old->inconsistent();
    co_await node->close();
  }

  void choose(const BackupEntry* last) {
    BackupEntry& entry = result_.entry;
    entry.full = true;
    entry.method = "full";
    if (auto reason = reason_for_full(store_.manifest(), plan_.full)) {
      result_.reason = *reason;
    } else if (!keeps_bitmap_) {
      entry.full = false;
      entry.method = "compare";
      result_.reason = plan_.bitmap ? "the image keeps no bitmaps: all of it is read and compared"
                                    : "without bitmaps all of the image is read and compared";
    } else if (usable_) {
      entry.full = false;
      entry.method = "bitmap";
    } else if (inconsistent_) {
      result_.reason =
          "the bitmap of the changes is inconsistent: a program that wrote to the "
          "image did not close it";
    } else {
      result_.reason = fmt::format(
          "the image has no record of the changes since backup {}: it was replaced, or its bitmap "
          "removed",
          last->id);
    }
    if (entry.full) old_name_.clear();
  }

  // Of the bitmaps of this directory KEPT stays, and ADDED, if any, is there afterwards, clean.
  Task<void> change_bitmaps(std::string kept, std::string added) {
    OpenRequest request = plan_.image;
    request.flags.writable = true;
    request.flags.no_backing = true;
    NodePtr node = co_await open_node(caller_.context, std::move(request));
    const std::string prefix = store_.manifest().bitmap_prefix();
    co_await finally(
        [&]() -> Task<void> {
          for (const DirtyBitmapPtr& bitmap : node->bitmaps().list())
            if (bitmap->name().starts_with(prefix) && bitmap->name() != kept)
              node->bitmaps().remove(bitmap->name());
          if (!added.empty())
            add_bitmap(*node, {.name = added,
                               .granularity = kBackupGranularity,
                               .persistent = true,
                               .enabled = true});
          co_return;
        },
        [&] { return close_all({node}); });
  }

  // The backup is complete: what its bitmap has is of no use any more.
  void forget_old(const std::string& kept) {
    try {
      caller_.run(change_bitmaps(kept, {}));
    } catch (const Error& error) {
      caller_.warn("The bitmap '" + old_name_ + "' stays in the image: " + error.message());
    }
  }

  Task<void> copy(std::string part) {
    OpenRequest request = plan_.image;
    request.flags.unshare_write = true;
    PartContent content{.full = result_.entry.full, .compress = plan_.compress};
    content.source = co_await open_node(caller_.context, std::move(request));
    co_await finally(
        [&]() -> Task<void> {
          if (content.source->length() != result_.entry.size)
            throw Error(ErrorKind::kIo, "the size of the image changed meanwhile");
          DirtyBitmapPtr changed;
          if (result_.entry.method == "bitmap") {
            changed = content.source->bitmaps().get(old_name_);
            changed->check_readable();
            content.changed = changed.get();
          }
          co_await fill_part(caller_, store_, part, content);
        },
        [&] { return content.source->close(); });
  }

  Caller& caller_;
  const BackupOptions& plan_;
  BackupStore& store_;
  BackupResult result_;
  std::string old_name_;  // of the bitmap that has the changes since the last backup; empty: none
  bool keeps_bitmap_ = false;
  bool found_ = false;
  bool usable_ = false;
  bool inconsistent_ = false;
};

}  // namespace

std::optional<std::string> reason_for_full(const BackupManifest& manifest, bool asked) {
  if (manifest.backups.empty()) return "it is the first one";
  if (asked) return "a full one was asked for";
  const size_t last = manifest.backups.size() - 1;
  if (last - manifest.chain_begin(last) + 1 >= kMostChain)
    return fmt::format("{} backups stand on each other already", kMostChain);
  return std::nullopt;
}

BackupResult back_up(Caller& caller, BackupOptions options) {
  BackupStore store(options.directory, BackupStore::Use::kMake);
  if (store.manifest().next > BackupManifest::kMostId)
    throw Error(ErrorKind::kTooLarge, "the directory has had too many backups");
  if (!options.address.empty()) return back_up_node(caller, options, store);
  return ImageBackup(caller, options, store).run();
}

BackupManifest read_backups(const std::string& directory) {
  const BackupStore store(directory, BackupStore::Use::kRead);
  return store.manifest();
}

BackupEntry restore_backup(Caller& caller, RestoreOptions options) {
  const BackupStore store(options.directory, BackupStore::Use::kRead);
  const BackupManifest& manifest = store.manifest();
  const size_t index = manifest.find(options.at);
  for (size_t i = manifest.chain_begin(index); options.check && i <= index; ++i) {
    const BackupEntry& entry = manifest.backups[i];
    caller.phase("checksum");
    constexpr const char* kVerify = "Verify the directory to see which backups can be restored.";
    std::string digest;
    try {
      digest = store.digest(caller, entry.file(), nullptr);
    } catch (Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      throw error.context("backup " + std::to_string(entry.id)).hint(kVerify);
    }
    if (digest != entry.sha256)
      throw Error(ErrorKind::kCorrupt, "'" + store.path(entry.file()) +
                                           "' is not what the backup wrote: its checksum differs")
          .hint(kVerify);
  }
  ConversionOptions target = std::move(options.target);
  target.sources.clear();
  target.sources.push_back(caller.run(store.chain_request(caller, index)));
  caller.phase("restore");
  convert(caller, std::move(target));
  return manifest.backups[index];
}

}  // namespace cairn::operation
