#include <fmt/core.h>
#include <time.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/snapshot_switch.h"

namespace cairn {

using namespace qcow2;

// Internal snapshots: L1 tables of former times, which share L2 tables and clusters with the active
// one by their refcounts.
//
// What changes is written next to the old state, and one write of the header switches
// (snapshot_switch.h): a crash leaves one state or the other.

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
  co_await read_table(*file_, snapshot.l1_offset, table);
  std::vector<uint64_t> entries(snapshot.l1_entries);
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = load_be<uint64_t>(table, i * 8);
  co_return entries;
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
  co_await free_now(old_offset / cluster(), div_ceil(old_bytes, cluster()), Freed::kTables);
}

// --- what users ask for ---

// Gives the disk as it is to ENTRY, with its size and tables filled in. Every range is locked.
Task<void> Qcow2Node::append_snapshot(SnapshotEntry entry) {
  co_await flush_mapped();
  entry.disk_bytes = length();
  entry.l1_entries = static_cast<uint32_t>(l1_count_);
  std::vector<SnapshotEntry> list = snapshots_;
  list.push_back(std::move(entry));
  std::vector<uint64_t> active = l1_entries();
  {
    SnapshotSwitch to(*this);
    co_await to.begin(active, 2, active.size(), list);
    co_await to.share(active);
    list.back().l1_offset = co_await to.write_l1(active);
    co_await to.finish(active, std::move(list), length());
  }
  co_await flush_mapped();
}

Task<void> Qcow2Node::create_snapshot(std::string name) {
  if (read_only()) throw Error::system(EACCES);
  if (external_) throw Error::system(ENOTSUP);
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
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
  entry.icount = 0;
  co_await append_snapshot(std::move(entry));
}

Task<void> Qcow2Node::apply_snapshot(std::string which) {
  if (read_only()) throw Error::system(EACCES);
  if (!bitmaps().empty()) throw Error(ErrorKind::kUnsupported, "Device has active dirty bitmaps");
  if (external_) throw Error::system(ENOTSUP, "Failed to load snapshot");
  const SnapshotEntry* found = find_any(snapshots_, which);
  if (found == nullptr) throw Error::system(ENOENT, "Failed to load snapshot");
  const SnapshotEntry snapshot = *found;
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  if (snapshot.disk_bytes != length()) {
    if (header_.version < 3)
      throw Error(ErrorKind::kUnsupported, "Can't resize a v2 image which has snapshots");
    if (!is_aligned(snapshot.disk_bytes, 512))
      throw Error(ErrorKind::kInvalid, "The new size must be a multiple of 512");
    if (snapshot.disk_bytes > header_.max_size())
      throw Error(ErrorKind::kTooLarge, "Failed to grow the L1 table: File too large");
  }
  std::vector<uint64_t> active = co_await read_l1(snapshot);
  // Kept long enough for the disk's size.
  active.resize(std::max<size_t>(active.size(), header_.l1_entries_for(snapshot.disk_bytes)));
  const std::vector<uint64_t> old = l1_entries();
  {
    SnapshotSwitch to(*this);
    co_await to.begin(active, 1, active.size(), snapshots_);
    // In this order no counter rises above what it will be.
    co_await to.count(old, -1);
    co_await to.count(active, +1);
    co_await to.renew_copied(active);
    co_await to.finish(active, snapshots_, snapshot.disk_bytes);
  }
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
  const SnapshotEntry snapshot = *found;
  const std::vector<uint64_t> entries = co_await read_l1(snapshot);
  std::vector<SnapshotEntry> list = snapshots_;
  list.erase(list.begin() + (found - snapshots_.begin()));
  std::vector<uint64_t> active = l1_entries();
  {
    SnapshotSwitch to(*this);
    co_await to.begin(active, 1, active.size(), list);
    co_await to.count(entries, -1);
    co_await to.count_clusters(snapshot.l1_offset, div_ceil(entries.size() * 8, cluster()), -1);
    co_await to.renew_copied(active);
    co_await to.finish(active, std::move(list), length());
  }
  co_await flush_mapped();
}

void Qcow2Node::use_l1(const std::vector<uint64_t>& entries) {
  auto shown = std::make_unique<std::atomic<uint64_t>[]>(std::max<size_t>(1, entries.size()));
  for (size_t i = 0; i < entries.size(); ++i) shown[i] = entries[i];
  l1_ = std::move(shown);
  l1_count_ = entries.size();
}

Task<void> Qcow2Node::show_snapshot(std::string id, std::string name) {
  if (external_) throw Error::system(ENOTSUP);
  const SnapshotEntry* found = nullptr;
  if (!id.empty() || !name.empty()) found = find_entry(snapshots_, id, name);
  if (found == nullptr) throw Error(ErrorKind::kNotFound, "Can't find snapshot");
  const std::vector<uint64_t> entries = co_await read_l1(*found);
  use_l1(entries);
}

// --- all of them, for copies of an image ---

std::vector<SnapshotRecord> Qcow2Node::snapshots() const {
  std::vector<SnapshotRecord> list;
  if (header_.incompatible & kIncompatDataFile) return list;
  for (const SnapshotEntry& one : snapshots_)
    list.push_back({.id = one.id,
                    .name = one.name,
                    .date_seconds = one.date_seconds,
                    .date_nanoseconds = one.date_nanoseconds,
                    .vm_clock = one.vm_clock,
                    .vm_state_bytes = one.vm_state_bytes,
                    .disk_bytes = one.disk_bytes,
                    .icount = one.icount,
                    .extra = one.unknown});
  return list;
}

Task<void> Qcow2Node::show_state(std::optional<size_t> which) {
  if (!read_only()) throw Error::system(EBUSY);
  if (!which) {
    co_await read_l1_table();
    set_length(header_.size);
    co_return;
  }
  if (external_) throw Error::system(ENOTSUP);
  const SnapshotEntry& entry = snapshots_.at(*which);
  if (!is_aligned(entry.disk_bytes, 512) || entry.disk_bytes > header_.max_size())
    throw Error(ErrorKind::kInvalid,
                fmt::format("{}: the snapshot '{}' has the impossible disk size {}", filename(),
                            entry.name, entry.disk_bytes));
  std::vector<uint64_t> entries;
  try {
    entries = co_await read_l1(entry);
  } catch (Error& error) {
    throw error.context(filename() + ": snapshot '" + entry.name + "'");
  }
  use_l1(entries);
  set_length(entry.disk_bytes);
}

Task<void> Qcow2Node::record_snapshot(SnapshotRecord record) {
  if (read_only()) throw Error::system(EACCES);
  if (external_) throw Error::system(ENOTSUP);
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  const uint64_t state = vm_state_offset();
  const auto state_end = checked_add(state, record.vm_state_bytes);
  if (!state_end || *state_end > static_cast<uint64_t>(INT64_MAX))
    throw Error::system(EFBIG, "Snapshot '" + record.name + "'");
  SnapshotEntry entry;
  entry.id = std::move(record.id);
  entry.name = std::move(record.name);
  entry.date_seconds = record.date_seconds;
  entry.date_nanoseconds = record.date_nanoseconds;
  entry.vm_clock = record.vm_clock;
  entry.vm_state_bytes = record.vm_state_bytes;
  entry.icount = record.icount;
  entry.unknown = std::move(record.extra);
  co_await append_snapshot(std::move(entry));
  // The state is the snapshot's alone from now on.
  const uint64_t end = std::min(align_up(*state_end, cluster()), l1_count_ * header_.l2_range());
  if (state < end) {
    co_await unmap_locked(state, end - state);
    co_await flush_mapped();
  }
}

}  // namespace cairn
