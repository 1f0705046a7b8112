#include <algorithm>

#include "base/arith.h"
#include "format/qcow2/snapshot_switch.h"

namespace cairn {

using namespace qcow2;

// The second half of a SnapshotSwitch: from the area back to the places of before. All that is
// written first is written to clusters that the new state does not count.

// Where what an entry of an L1 table refers to is in the end.
uint64_t SnapshotSwitch::settled_place(uint64_t entry) const {
  const auto found =
      std::lower_bound(moved_.begin(), moved_.end(), entry & kOffsetMask,
                       [](const Move& one, uint64_t place) { return one.now < place; });
  if (found == moved_.end() || found->now != (entry & kOffsetMask)) return entry;
  return found->before | (entry & ~kOffsetMask);
}

// Whether CLUSTERS from NOW on can be at BEFORE again, which must be free; plans their counters.
Task<bool> SnapshotSwitch::may_go_back(uint64_t before, uint64_t now, uint64_t clusters) {
  const uint64_t cluster = node_.cluster();
  for (uint64_t i = 0; i < clusters; ++i) {
    const uint64_t used = co_await node_.refcount(before / cluster + i);
    if (used != 0) co_return false;
  }
  for (uint64_t i = 0; i < clusters; ++i) {
    recounted_[before / cluster + i] = co_await node_.refcount(now / cluster + i);
    recounted_[now / cluster + i] = 0;
  }
  co_return true;
}

Task<void> SnapshotSwitch::write_entries(uint64_t place, std::span<const uint64_t> entries) {
  std::vector<std::byte> bytes(entries.size() * 8);
  for (size_t i = 0; i < entries.size(); ++i) store_be<uint64_t>(bytes, i * 8, entries[i]);
  co_await node_.file_->write(place, bytes);
}

// The blocks of before, with the counters of the end.
Task<void> SnapshotSwitch::write_blocks_back() {
  const uint64_t per_block = node_.header_.refcounts_per_block();
  AlignedBuffer block(node_.cluster());
  for (size_t i = 0; i < old_table_.size(); ++i) {
    if (old_table_[i] == 0) continue;
    {
      const TableCache::Ref ref = co_await node_.refcounts_->get(node_.refcount_table_[i]);
      std::copy(ref.bytes().begin(), ref.bytes().end(), block.span().begin());
    }
    for (auto at = recounted_.lower_bound(i * per_block);
         at != recounted_.end() && at->first < (i + 1) * per_block; ++at)
      set_refcount(block.span(), at->first % per_block, node_.header_.refcount_order, at->second);
    co_await node_.file_->write(old_table_[i], std::as_const(block).span());
  }
}

// CLUSTERS from PLACE on stay in the area. False where no block of before counts them.
bool SnapshotSwitch::keep(uint64_t place, uint64_t clusters) {
  const uint64_t per_block = node_.header_.refcounts_per_block();
  const uint64_t first = place / node_.cluster();
  for (uint64_t i = first / per_block; i <= (first + clusters - 1) / per_block; ++i)
    if (i >= old_table_.size() || old_table_[i] == 0) return false;
  kept_end_ = std::max(kept_end_, place + clusters * node_.cluster());
  return true;
}

// The file ends with the last name, as QEMU's does.
Task<bool> SnapshotSwitch::place_list(Roots& roots, const std::vector<SnapshotEntry>& snapshots) {
  const uint64_t place = list_stays_ ? old_.list_place : list_reserved_;
  if (place == 0 || snapshots.empty()) co_return true;
  std::vector<std::byte> list;
  for (const SnapshotEntry& one : snapshots) one.encode(list);
  const bool free =
      co_await may_go_back(place, roots.list_place, div_ceil(list.size(), node_.cluster()));
  if (!free) co_return false;
  const SnapshotEntry& last = snapshots.back();
  list.resize(list.size() -
              (last.encoded_bytes - 64 - last.unknown.size() - last.id.size() - last.name.size()));
  co_await node_.file_->write(place, list);
  roots.list_place = place;
  file_bytes_ = std::max<uint64_t>(file_bytes_, place + list.size());
  co_return true;
}

// Writes everything that leaves the area. False: something is in the way, all stays there.
Task<bool> SnapshotSwitch::place_back(Roots& roots, std::vector<uint64_t>& active,
                                      std::vector<SnapshotEntry>& snapshots) {
  const uint64_t cluster = node_.cluster();
  for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
    const uint64_t now = node_.refcount_table_[i];
    const uint64_t before = i < old_table_.size() ? old_table_[i] : 0;
    if (before != 0) {
      const bool free = co_await may_go_back(before, now, 1);
      if (!free) co_return false;
    } else if (now != 0) {
      recounted_[now / cluster] = 0;  // counted the area alone
    }
  }
  for (uint64_t i = 0; i < old_.table_clusters; ++i) {
    const bool free =
        co_await may_go_back(old_.table_place + i * cluster, roots.table_place + i * cluster, 1);
    if (!free) co_return false;
  }
  for (uint64_t i = old_.table_clusters; i < roots.table_clusters; ++i)
    recounted_[roots.table_place / cluster + i] = 0;
  roots.table_place = old_.table_place;
  roots.table_clusters = old_.table_clusters;

  const uint64_t l1_clusters = div_ceil(roots.l1_entries * 8, cluster);
  if (l1_clusters == div_ceil(old_.l1_entries * 8, cluster)) {
    const bool free = co_await may_go_back(old_.l1_place, roots.l1_place, l1_clusters);
    if (!free) co_return false;
    roots.l1_place = old_.l1_place;
  } else {
    const bool kept = keep(roots.l1_place, l1_clusters);
    if (!kept) co_return false;
  }
  std::vector<Move> back;
  for (const Move& one : moved_) {
    const bool free = co_await may_go_back(one.before, one.now, 1);
    if (free) back.push_back(one);
    const bool kept = free || keep(one.now, 1);
    if (!kept) co_return false;
  }
  moved_ = std::move(back);
  std::sort(moved_.begin(), moved_.end(),
            [](const Move& a, const Move& b) { return a.now < b.now; });
  for (const Move& one : moved_) {
    co_await load(one.now);
    co_await node_.file_->write(one.before, std::as_const(table_).span());
  }

  if (l1_reserved_ != 0) {
    SnapshotEntry& made = snapshots.back();
    std::vector<uint64_t> entries = co_await node_.read_l1(made);
    for (uint64_t& entry : entries) entry = settled_place(entry);
    co_await write_entries(l1_reserved_, entries);
    const bool free =
        co_await may_go_back(l1_reserved_, made.l1_offset, div_ceil(entries.size() * 8, cluster));
    if (!free) co_return false;
    made.l1_offset = l1_reserved_;
  }
  const bool listed = co_await place_list(roots, snapshots);
  if (!listed) co_return false;
  for (uint64_t& entry : active) entry = settled_place(entry);
  co_await write_entries(roots.l1_place, active);
  co_await write_blocks_back();
  std::vector<uint64_t> table = old_table_;
  table.resize(old_.table_clusters * cluster / 8);
  co_await write_entries(old_.table_place, table);
  co_await node_.file_->flush();
  co_return true;
}

Task<void> SnapshotSwitch::settle() {
  if (!may_settle_) co_return;
  const Header& header = node_.header_;
  Roots roots{.disk_bytes = header.size,
              .l1_entries = header.l1_entries,
              .l1_place = header.l1_offset,
              .table_place = header.refcount_table_offset,
              .table_clusters = header.refcount_table_clusters,
              .list_place = header.snapshots_offset};
  std::vector<uint64_t> active = node_.l1_entries();
  std::vector<SnapshotEntry> snapshots = node_.snapshots_;
  bool placed = false;
  try {
    placed = co_await place_back(roots, active, snapshots);
  } catch (const Error&) {
    // What was asked for is done; only its place is another matter.
  }
  if (!placed) co_return;
  co_await write_roots(roots, snapshots.size());
  const uint64_t cluster = node_.cluster();
  for (const uint64_t block : node_.refcount_table_)
    if (block != 0) node_.refcounts_->forget(block, cluster);
  for (const uint64_t block : old_table_)
    if (block != 0) node_.refcounts_->forget(block, cluster);
  for (const Move& one : moved_) {
    node_.l2_->forget(one.before, cluster);
    node_.l2_->forget(one.now, cluster);
  }
  node_.refcount_table_ = old_table_;
  node_.refcount_table_.resize(old_.table_clusters * cluster / 8);
  node_.free_cursor_ = 0;
  adopt(roots, active, std::move(snapshots));
  co_await node_.file_->flush();
  co_await cut_area();
}

// The file is as long as it was, or as what is new needs it.
Task<void> SnapshotSwitch::cut_area() {
  if (kept_end_ != 0) co_return;
  const uint64_t wanted =
      std::max(file_bytes_, l1_reserved_ == 0 ? 0 : l1_reserved_ + old_.l1_entries * 8);
  if (node_.file_->length() <= wanted) co_return;
  try {
    co_await node_.file_->resize({.length = wanted});
  } catch (const Error&) {
    // Free clusters at the end are all that is left of it.
  }
}

}  // namespace cairn
