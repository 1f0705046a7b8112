// What is done with backups that are there: they are verified, and old ones go.
#include <fmt/core.h>

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "job/convert.h"
#include "operation/backup.h"
#include "operation/backup_store.h"

namespace cairn::operation {
namespace {

// Whether the file of backup INDEX, which is what was written, is what the manifest says it is.
// Gives what is wrong; empty: nothing.
Task<std::string> look_at_backup(Caller& caller, const BackupStore& store, size_t index) {
  const BackupManifest& manifest = store.manifest();
  const BackupEntry& entry = manifest.backups[index];
  NodePtr node = co_await store.open_chain(caller, index);
  const std::string stands_on = backing_name_of(*node);
  const uint64_t length = node->length();
  co_await node->close();
  const std::string expected = entry.full ? std::string() : manifest.backups[index - 1].file();
  if (stands_on != expected)
    co_return "its backing file is '" + stands_on + "' instead of '" + expected + "'";
  if (length < entry.size)
    co_return fmt::format("its disk has {} bytes instead of {}", length, entry.size);
  co_return std::string();
}

// A full image of the disk as backup INDEX has it, as the part of that backup.
Task<void> merge_backup(Caller& caller, const BackupStore& store, size_t index, std::string part) {
  std::vector<NodePtr> nodes;
  co_await finally(
      [&]() -> Task<void> {
        NodePtr source = co_await store.open_chain(caller, index);
        nodes.push_back(source);
        OpenRequest opening;
        opening.filename = part;
        opening.format = "qcow2";
        opening.flags.writable = true;
        opening.flags.no_backing = true;
        opening.flags.cache = *CacheMode::parse("unsafe");
        NodePtr target = co_await open_node(caller.context, std::move(opening));
        nodes.push_back(target);
        ConvertOptions options;
        options.zero_target = true;
        options.keep_compressed = true;
        Convert job(caller.context, {source}, target, options, caller.cancel);
        job.progress = [&](uint64_t done, uint64_t total) { caller.progress(done, total); };
        co_await job.run();
      },
      [&] { return close_all(nodes); });
}

}  // namespace

BackupCheck verify_backups(Caller& caller, const std::string& directory) {
  const BackupStore store(directory, BackupStore::Use::kRead);
  const BackupManifest& manifest = store.manifest();
  BackupCheck check;
  check.backups = manifest.backups.size();
  std::string broken;  // the backup on which those that follow it stand
  for (size_t i = 0; i < manifest.backups.size(); ++i) {
    const BackupEntry& entry = manifest.backups[i];
    if (entry.full) broken.clear();
    std::string problem;
    try {
      caller.phase("checksum");
      uint64_t bytes = 0;
      if (store.digest(caller, entry.file(), &bytes) != entry.sha256)
        problem = "its checksum differs from that of the file that was written";
      check.bytes += bytes;
      if (problem.empty() && broken.empty()) problem = caller.run(look_at_backup(caller, store, i));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      problem = error.kind() == ErrorKind::kNotFound ? "it is missing" : error.message();
    }
    if (problem.empty() && broken.empty()) continue;
    if (problem.empty())
      problem = "it cannot be restored, for it stands on " + broken;
    else if (broken.empty())
      broken = entry.file();
    check.problems.push_back(entry.file() + ": " + problem);
  }
  return check;
}

PruneResult prune_backups(Caller& caller, const std::string& directory, uint64_t keep) {
  BackupStore store(directory, BackupStore::Use::kChange);
  BackupManifest& manifest = store.manifest();
  PruneResult result;
  if (keep == 0) invalid("at least one backup has to be kept");
  if (manifest.backups.size() <= keep) return result;
  const size_t first = manifest.backups.size() - keep;
  for (size_t i = 0; i < first; ++i) result.removed.push_back(manifest.backups[i].id);
  if (manifest.backups[first].full) {
    manifest.removing = result.removed;
    manifest.backups.erase(manifest.backups.begin(),
                           manifest.backups.begin() + static_cast<ptrdiff_t>(first));
    store.commit();
    store.remove_files();
    return result;
  }
  // What is merged must be sound: the files that prove it go.
  for (size_t i = manifest.chain_begin(first); i <= first; ++i) {
    caller.phase("checksum");
    if (store.digest(caller, manifest.backups[i].file(), nullptr) != manifest.backups[i].sha256)
      throw Error(ErrorKind::kCorrupt,
                  manifest.backups[i].file() + ": its checksum differs; nothing was removed");
  }
  BackupEntry merged = manifest.backups[first];
  result.merged = merged.id;
  try {
    const std::string part =
        store.make_part(caller, merged.id, (merged.size + 511) / 512 * 512, nullptr);
    caller.phase("merge");
    caller.run(merge_backup(caller, store, first, part));
    caller.phase("checksum");
    store.seal_part(caller, merged);
  } catch (...) {
    store.drop_part(merged.id);
    throw;
  }
  manifest.replacing = {.id = merged.id, .bytes = merged.bytes, .sha256 = merged.sha256};
  store.commit();
  store.finish_replacing();
  store.remove_files();
  return result;
}

}  // namespace cairn::operation
