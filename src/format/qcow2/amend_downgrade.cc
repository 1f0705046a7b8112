#include <algorithm>
#include <set>

#include "base/arith.h"
#include "block/driver.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Version 2 has no zero clusters. In every tree, those that need no space become unallocated, the
// others get a cluster full of zeroes, all while the image still is a version 3 one; the header
// changes last.

// Every L2 table once, no matter what shares it.
Task<Qcow2Node::L2Tables> Qcow2Node::all_l2_tables() {
  L2Tables tables;
  for (uint64_t i = 0; i < l1_count_; ++i)
    if (const uint64_t table = l1_entry(i) & kOffsetMask)
      tables[table] = {.active = true, .first = i * header_.l2_range()};
  for (const SnapshotEntry& snapshot : snapshots_) {
    const std::vector<uint64_t> entries = co_await read_l1(snapshot);
    for (size_t i = 0; i < entries.size(); ++i)
      if (const uint64_t table = entries[i] & kOffsetMask)
        tables.emplace(table, L2Owner{.active = false, .first = i * header_.l2_range()});
  }
  for (const auto& [table, owner] : tables)
    if (!is_aligned(table, cluster())) corrupt("L2 table offset unaligned");
  co_return tables;
}

Task<bool> Qcow2Node::has_compressed(const L2Tables& tables) {
  for (const auto& [table, owner] : tables) {
    for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
      const TableCache::Ref ref = co_await l2_->get(table + at);
      for (size_t i = 0; i < slice_bytes_ / 8; ++i)
        if (ref.load_entry(i) & kCompressed) co_return true;
    }
  }
  co_return false;
}

Task<void> Qcow2Node::expand_zeroes(uint64_t table, L2Owner owner) {
  uint64_t sharers = 0;
  {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    sharers = co_await refcount(table / cluster());
  }
  if (sharers == 0) corrupt("an L2 table has no refcount");
  for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
    const TableCache::Ref ref = co_await l2_->get(table + at);
    bool changed = false;
    for (size_t i = 0; i < slice_bytes_ / 8; ++i) {
      const uint64_t old = ref.load_entry(i);
      if ((old & kCompressed) || !(old & kZeroFlag)) continue;
      const uint64_t offset = owner.first + (at / 8 + i) * cluster();
      const uint64_t now = co_await expanded(old, sharers, owner.active, offset);
      ref.store_entry(i, now);
      changed = true;
    }
    if (changed) l2_->mark_dirty(ref);
  }
  l2_->write_after_file_flush();
  co_await l2_->write_back();
}

// What stands for the zero cluster ENTRY at the guest's OFFSET, of a table that SHARERS L1 entries
// point to.
Task<uint64_t> Qcow2Node::expanded(uint64_t entry, uint64_t sharers, bool active, uint64_t offset) {
  uint64_t host = entry & kOffsetMask;
  if (!is_aligned(host, cluster())) corrupt("Cluster allocation offset unaligned");
  if (host == 0 && !lies_on_backing()) co_return 0;
  bool own = false;
  if (host != 0) {
    // Another table may show the cluster's content.
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    const uint64_t references = co_await refcount(host / cluster());
    own = references == sharers;
  }
  if (!own) {
    const uint64_t old = host;
    host = co_await allocate(1);
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    for (uint64_t i = 1; i < sharers; ++i) co_await change_refcount(host / cluster(), 1, +1);
    if (old != 0)
      for (uint64_t i = 0; i < sharers; ++i) free_later(old, cluster(), Freed::kTables);
  }
  check_overlap(host, cluster());
  if (header_.crypt_method == 0) {
    co_await file_->write_zeroes(host, cluster());
  } else {
    const std::vector<std::byte> zeroes(cluster());
    co_await write_payload(*file_, host, offset, zeroes);
  }
  co_return host | (active && sharers == 1 ? kCopied : 0);
}

Task<void> Qcow2Node::downgrade(const AmendRequest& request) {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  for (const SnapshotEntry& snapshot : snapshots_)
    if (snapshot.vm_state_bytes > UINT32_MAX || snapshot.disk_bytes != length())
      throw Error(ErrorKind::kInvalid, "Internal snapshots prevent downgrade of image");
  const L2Tables tables = co_await all_l2_tables();
  if (header_.compression_type != 0) {
    const bool compressed = co_await has_compressed(tables);
    if (compressed)
      throw Error(ErrorKind::kInvalid,
                  "Cannot downgrade an image with zstd compression type and existing compressed "
                  "clusters");
  }
  // Counted in entries of L1 tables, as QEMU does: those without a table of their own take no time.
  uint64_t total = l1_count_;
  for (const SnapshotEntry& snapshot : snapshots_) total += snapshot.l1_entries;
  uint64_t done = 0;
  for (const auto& [table, owner] : tables) {
    co_await expand_zeroes(table, owner);
    if (request.progress) request.progress(++done, total);
  }
  while (request.progress && done < total) request.progress(++done, total);
  co_await flush_mapped();
  header_.version = 2;
  header_.header_length = Header::kBytesV2;
  header_.incompatible = header_.compatible = header_.autoclear = 0;
  header_.compression_type = 0;
  header_.unknown.clear();
  co_await write_header();
}

}  // namespace cairn
