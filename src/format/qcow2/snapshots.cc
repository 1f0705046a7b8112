#include <time.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Internal snapshots: L1 tables of former times, which share L2 tables and clusters with the active
// one by their refcounts.
//
// Order, so that a crash costs leaked clusters at most: COPIED is cleared before a counter rises
// and set after it fell; counters rise before a table refers to the clusters and fall after it
// ceased to; a table is replaced by a new one behind it, and the header switches in one write.

namespace {

constexpr size_t kMaxNameBytes = 255;

SnapshotEntry* find_entry(std::vector<SnapshotEntry>& all, const std::string& id,
                          const std::string& name) {
  for (SnapshotEntry& one : all)
    if ((id.empty() || one.id == id) && (name.empty() || one.name == name)) return &one;
  return nullptr;
}

// As an ID first, then as a name.
SnapshotEntry* find_any(std::vector<SnapshotEntry>& all, const std::string& which) {
  SnapshotEntry* found = which.empty() ? nullptr : find_entry(all, which, {});
  if (found == nullptr)
    for (SnapshotEntry& one : all)
      if (found == nullptr && one.name == which) found = &one;
  return found;
}

}  // namespace

std::vector<uint64_t> Qcow2Node::l1_entries() const {
  std::vector<uint64_t> entries(l1_count_);
  for (uint64_t i = 0; i < l1_count_; ++i) entries[i] = l1_entry(i);
  return entries;
}

Task<std::vector<uint64_t>> Qcow2Node::read_l1(const SnapshotEntry& snapshot) {
  const uint64_t bytes = uint64_t{snapshot.l1_entries} * 8;
  if (bytes > kMaxL1Bytes) throw Error(ErrorKind::kTooLarge, "Snapshot L1 table too large");
  const auto end = checked_add(snapshot.l1_offset, bytes);
  if (!is_aligned(snapshot.l1_offset, cluster()) || !end ||
      *end > align_up(file_->length(), cluster()))
    throw Error(ErrorKind::kInvalid, "Snapshot L1 table offset invalid");
  std::vector<std::byte> table(bytes);
  co_await file_->read(snapshot.l1_offset, table);
  std::vector<uint64_t> entries(snapshot.l1_entries);
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = load_be<uint64_t>(table, i * 8);
  co_return entries;
}

// --- reference counts of a whole tree ---

Task<void> Qcow2Node::change_tree(std::span<const uint64_t> l1, int delta) {
  size_t done = 0;
  std::exception_ptr error;
  try {
    for (; done < l1.size(); ++done) {
      const uint64_t table = l1[done] & kOffsetMask;
      if (table != 0) co_await change_table(table, delta);
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  // A counter that would overflow: what was raised comes down again.
  if (delta > 0) {
    for (size_t i = 0; i < done; ++i) {
      const uint64_t table = l1[i] & kOffsetMask;
      if (table != 0) co_await change_table(table, -delta);
    }
  }
  std::rethrow_exception(error);
}

// The clusters of one L2 table, then the table. All or nothing.
Task<void> Qcow2Node::change_table(uint64_t table, int delta) {
  if (!is_aligned(table, cluster())) corrupt("L2 table offset unaligned");
  std::vector<Run> runs;
  const auto add = [&](uint64_t first, uint64_t count) {
    if (!runs.empty() && runs.back().first + runs.back().count == first)
      runs.back().count += count;
    else
      runs.push_back({first, count});
  };
  const size_t per_slice = slice_bytes_ / header_.l2_entry_bytes();
  for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
    const TableCache::Ref ref = co_await l2_->get(table + at);
    for (size_t i = 0; i < per_slice; ++i) {
      const Entry entry = load_entry(ref, i);
      if (entry.word & kCompressed) {
        const CompressedPlace place = CompressedPlace::decode(entry.word, header_.cluster_bits);
        const uint64_t first = place.offset / cluster();
        add(first, div_ceil(place.offset + place.length, cluster()) - first);
      } else if (const uint64_t host = entry.word & kOffsetMask) {
        if (!is_aligned(host, cluster())) corrupt("Cluster allocation offset unaligned");
        add(host / cluster(), 1);
      }
    }
  }
  add(table / cluster(), 1);
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  size_t done = 0;
  std::exception_ptr error;
  try {
    for (; done < runs.size(); ++done)
      co_await change_refcount(runs[done].first, runs[done].count, delta);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    while (delta > 0 && done-- > 0)
      co_await change_refcount(runs[done].first, runs[done].count, -delta);
    std::rethrow_exception(error);
  }
  if (delta < 0) {
    const uint64_t left = co_await refcount(table / cluster());
    if (left == 0) l2_->forget(table, cluster());
  }
}

// --- the COPIED flags of the active tree ---

Task<void> Qcow2Node::write_l1_entries() {
  std::vector<std::byte> bytes(l1_count_ * 8);
  for (uint64_t i = 0; i < l1_count_; ++i) store_be<uint64_t>(bytes, i * 8, l1_entry(i));
  if (!bytes.empty()) co_await file_->write(header_.l1_offset, bytes);
}

Task<void> Qcow2Node::clear_copied() {
  const size_t per_slice = slice_bytes_ / header_.l2_entry_bytes();
  for (uint64_t index = 0; index < l1_count_; ++index) {
    const uint64_t table = l1_entry(index) & kOffsetMask;
    // Under an entry without the flag there are no flags either.
    if (table == 0 || !(l1_entry(index) & kCopied)) continue;
    for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
      const TableCache::Ref ref = co_await l2_->get(table + at);
      bool changed = false;
      for (size_t i = 0; i < per_slice; ++i) {
        Entry entry = load_entry(ref, i);
        if (!(entry.word & kCopied)) continue;
        entry.word &= ~kCopied;
        store_entry(ref, i, entry);
        changed = true;
      }
      if (changed) l2_->mark_dirty(ref);
    }
    set_l1_entry(index, table);
  }
  co_await l2_->write_back();
  co_await write_l1_entries();
  co_await file_->flush();
}

// Sets what clear_copied() took, where a counter is one again.
Task<void> Qcow2Node::renew_copied() {
  const size_t per_slice = slice_bytes_ / header_.l2_entry_bytes();
  for (uint64_t index = 0; index < l1_count_; ++index) {
    const uint64_t table = l1_entry(index) & kOffsetMask;
    if (table == 0) continue;
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    const uint64_t shared_by = co_await refcount(table / cluster());
    if (shared_by > 1) continue;
    for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
      const TableCache::Ref ref = co_await l2_->get(table + at);
      bool changed = false;
      for (size_t i = 0; i < per_slice; ++i) {
        Entry entry = load_entry(ref, i);
        const uint64_t host = entry.word & kOffsetMask;
        if ((entry.word & (kCompressed | kCopied)) || host == 0) continue;
        const uint64_t count = co_await refcount(host / cluster());
        if (count != 1) continue;
        entry.word |= kCopied;
        store_entry(ref, i, entry);
        changed = true;
      }
      if (changed) l2_->mark_dirty(ref);
    }
    set_l1_entry(index, table | kCopied);
  }
  co_await refcounts_->write_back();
  co_await l2_->write_back();
  co_await write_l1_entries();
  co_await file_->flush();
}

// --- the table ---

// Writes a new table and switches to it; the old one's space is given back.
Task<void> Qcow2Node::store_snapshots(std::vector<SnapshotEntry> snapshots) {
  if (snapshots.size() > kMaxSnapshots) throw Error::system(EFBIG);
  std::vector<std::byte> table;
  for (const SnapshotEntry& one : snapshots) one.encode(table);
  if (table.size() > kMaxSnapshotTableBytes) throw Error::system(EFBIG);
  uint64_t old_bytes = 0;
  for (const SnapshotEntry& one : snapshots_) old_bytes += one.encoded_bytes;
  const uint64_t old_offset = header_.snapshots_offset;
  uint64_t place = 0;
  if (!table.empty()) {
    place = co_await allocate(div_ceil(table.size(), cluster()));
    co_await file_->write(place, table);
  }
  co_await refcounts_->write_back();
  co_await file_->flush();
  std::byte field[12];
  store_be<uint32_t>(field, 0, static_cast<uint32_t>(snapshots.size()));
  store_be<uint64_t>(field, 4, place);
  co_await write_header_field(60, field);
  header_.snapshot_count = static_cast<uint32_t>(snapshots.size());
  header_.snapshots_offset = place;
  for (SnapshotEntry& one : snapshots)
    one.encoded_bytes = align_up(64 + one.unknown.size() + one.id.size() + one.name.size(), 8);
  snapshots_ = std::move(snapshots);
  co_await note_inactive_tables();
  if (old_bytes == 0) co_return;
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  co_await change_refcount(old_offset / cluster(), div_ceil(old_bytes, cluster()), -1);
}

// --- what users ask for ---

Task<void> Qcow2Node::create_snapshot(std::string name) {
  if (read_only()) throw Error::system(EACCES);
  if (external_) throw Error::system(ENOTSUP);
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  uint64_t highest = 0;
  for (const SnapshotEntry& one : snapshots_) {
    const uint64_t number = std::strtoull(one.id.c_str(), nullptr, 10);
    if (number != UINT64_MAX) highest = std::max(highest, number);
  }
  struct timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  SnapshotEntry entry;
  entry.id = std::to_string(highest + 1);
  entry.name = name.substr(0, kMaxNameBytes);
  entry.date_seconds = static_cast<uint32_t>(now.tv_sec);
  entry.date_nanoseconds = static_cast<uint32_t>(now.tv_nsec);
  entry.disk_bytes = length();
  entry.icount = 0;
  entry.l1_entries = static_cast<uint32_t>(l1_count_);

  co_await clear_copied();
  std::exception_ptr error;
  try {
    co_await change_tree(l1_entries(), +1);
    entry.l1_offset = co_await allocate(std::max<uint64_t>(1, div_ceil(l1_count_ * 8, cluster())));
    std::vector<std::byte> table(l1_count_ * 8);
    for (uint64_t i = 0; i < l1_count_; ++i) store_be<uint64_t>(table, i * 8, l1_entry(i));
    co_await file_->write(entry.l1_offset, table);
    std::vector<SnapshotEntry> list = snapshots_;
    list.push_back(std::move(entry));
    co_await store_snapshots(std::move(list));
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await renew_copied();
    std::rethrow_exception(error);
  }
  co_await flush_mapped();
}

Task<void> Qcow2Node::apply_snapshot(std::string which) {
  if (read_only()) throw Error::system(EACCES);
  if (external_) throw Error::system(ENOTSUP, "Failed to load snapshot");
  const SnapshotEntry* found = find_any(snapshots_, which);
  if (found == nullptr) throw Error::system(ENOENT, "Failed to load snapshot");
  if (!bitmaps().empty()) throw Error(ErrorKind::kUnsupported, "Device has active dirty bitmaps");
  const SnapshotEntry snapshot = *found;
  if (snapshot.disk_bytes != length()) co_await do_resize({.length = snapshot.disk_bytes});
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  std::vector<uint64_t> entries = co_await read_l1(snapshot);
  for (uint64_t& entry : entries) entry &= kOffsetMask;
  // Kept long enough for the disk's size.
  entries.resize(std::max<size_t>(entries.size(), header_.l1_entries_for(length())));
  co_await change_tree(entries, +1);

  const uint64_t place =
      co_await allocate(std::max<uint64_t>(1, div_ceil(entries.size() * 8, cluster())));
  std::vector<std::byte> table(entries.size() * 8);
  for (size_t i = 0; i < entries.size(); ++i) store_be<uint64_t>(table, i * 8, entries[i]);
  co_await file_->write(place, table);
  co_await refcounts_->write_back();
  co_await file_->flush();
  const std::vector<uint64_t> old = l1_entries();
  const uint64_t old_offset = header_.l1_offset;
  std::byte field[12];
  store_be<uint32_t>(field, 0, static_cast<uint32_t>(entries.size()));
  store_be<uint64_t>(field, 4, place);
  co_await write_header_field(36, field);
  auto active = std::make_unique<std::atomic<uint64_t>[]>(std::max<size_t>(1, entries.size()));
  for (size_t i = 0; i < entries.size(); ++i) active[i] = entries[i];
  l1_ = std::move(active);
  l1_count_ = entries.size();
  header_.l1_entries = static_cast<uint32_t>(entries.size());
  header_.l1_offset = place;
  {
    std::lock_guard lock(tables_mutex_);
    for (const uint64_t entry : old) table_clusters_.erase((entry & kOffsetMask) / cluster());
    for (const uint64_t entry : entries)
      if (entry != 0) table_clusters_.insert(entry / cluster());
  }
  co_await change_tree(old, -1);
  {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    const uint64_t clusters = div_ceil(old.size() * 8, cluster());
    if (clusters != 0) co_await change_refcount(old_offset / cluster(), clusters, -1);
  }
  co_await renew_copied();
  co_await flush_mapped();
}

Task<void> Qcow2Node::delete_snapshot(std::string name) {
  if (read_only()) throw Error::system(EACCES);
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  const auto found = std::find_if(snapshots_.begin(), snapshots_.end(),
                                  [&](const SnapshotEntry& one) { return one.name == name; });
  if (found == snapshots_.end()) throw Error(ErrorKind::kNotFound, "snapshot not found");
  if (external_) throw Error::system(ENOTSUP);
  co_await flush_mapped();
  const SnapshotEntry snapshot = *found;
  const std::vector<uint64_t> entries = co_await read_l1(snapshot);
  std::vector<SnapshotEntry> list = snapshots_;
  list.erase(list.begin() + (found - snapshots_.begin()));
  co_await store_snapshots(std::move(list));
  co_await change_tree(entries, -1);
  {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    const uint64_t clusters = std::max<uint64_t>(1, div_ceil(entries.size() * 8, cluster()));
    co_await change_refcount(snapshot.l1_offset / cluster(), clusters, -1);
  }
  co_await renew_copied();
  co_await flush_mapped();
}

Task<void> Qcow2Node::show_snapshot(std::string id, std::string name) {
  if (external_) throw Error::system(ENOTSUP);
  const SnapshotEntry* found = nullptr;
  if (!id.empty() || !name.empty()) found = find_entry(snapshots_, id, name);
  if (found == nullptr) throw Error(ErrorKind::kNotFound, "Can't find snapshot");
  const std::vector<uint64_t> entries = co_await read_l1(*found);
  auto shown = std::make_unique<std::atomic<uint64_t>[]>(std::max<size_t>(1, entries.size()));
  for (size_t i = 0; i < entries.size(); ++i) shown[i] = entries[i];
  l1_ = std::move(shown);
  l1_count_ = entries.size();
}

}  // namespace cairn
