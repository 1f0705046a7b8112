#include "format/qcow2/snapshot_switch.h"

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "block/work_report.h"

namespace cairn {

using namespace qcow2;

namespace {
constexpr uint64_t kBatchBytes = 1 << 20;
}  // namespace

SnapshotSwitch::~SnapshotSwitch() {
  node_.became_free_ = nullptr;
  if (!begun_ || done_) return;
  node_.refcounts_->forget(area_ * node_.cluster(), (end_ - area_) * node_.cluster());
  node_.refcount_table_ = std::move(old_table_);
  node_.free_cursor_ = 0;
}

Task<void> SnapshotSwitch::begin(std::span<const uint64_t> active, uint64_t l1_tables,
                                 uint64_t l1_entries, const std::vector<SnapshotEntry>& snapshots) {
  if (snapshots.size() > kMaxSnapshots) throw Error::system(EFBIG);
  const uint64_t cluster = node_.cluster();
  const uint64_t per_block = node_.header_.refcounts_per_block();
  co_await node_.flush_mapped();
  // Counters that were postponed are copied, too.
  co_await node_.refcounts_->write_back();
  co_await node_.file_->flush();
  guard_ = co_await node_.alloc_mutex_.lock();

  std::vector<std::byte> list;
  for (const SnapshotEntry& one : snapshots) one.encode(list);
  if (list.size() > kMaxSnapshotTableBytes) throw Error::system(EFBIG);
  // Where a snapshot is applied the list stays where it is.
  list_stays_ = snapshots.size() == node_.snapshots_.size();
  co_await reserve(l1_tables < 2 ? 0 : div_ceil(l1_entries * 8, cluster),
                   list_stays_ ? 0 : div_ceil(list.size(), cluster));
  uint64_t wanted = l1_tables * div_ceil(l1_entries * 8, cluster) + div_ceil(list.size(), cluster);
  for (const uint64_t entry : active) wanted += (entry & kOffsetMask) != 0 ? 1 : 0;
  for (size_t i = 0; i < node_.refcount_table_.size(); ++i)
    wanted += node_.refcount_block(i) != 0 ? 1 : 0;

  // The area may need blocks of its own, and those more room.
  uint64_t table = std::max<uint64_t>(node_.header_.refcount_table_clusters, 1);
  uint64_t more = 0;
  Qcow2Node::Run area;
  while (true) {
    const uint64_t all = wanted + more + table;
    area = co_await node_.find_free(all, all);
    const auto end = checked_mul(area.first + all, cluster);
    if (!end || *end > kMaxHostOffset) throw Error::system(EFBIG);
    uint64_t missing = 0;
    const uint64_t last = (area.first + all - 1) / per_block;
    for (uint64_t i = area.first / per_block; i <= last; ++i)
      missing += node_.refcount_block(i) == 0 ? 1 : 0;
    const uint64_t long_enough = std::max(table, div_ceil((last + 1) * 8, cluster));
    if (missing <= more && long_enough == table) {
      area.count = all;
      break;
    }
    more = std::max(more, missing);
    table = long_enough;
  }
  if (table * cluster > kMaxRefcountTableBytes) throw Error::system(EFBIG);
  if (area.first == 0) node_.corrupt("Preventing invalid allocation of cluster at offset 0");
  node_.check_overlap(area.first * cluster, area.count * cluster);
  area_ = area.first;
  end_ = area.first + area.count;
  next_ = area_;
  table_ = AlignedBuffer(cluster);
  pending_ = AlignedBuffer(std::max(cluster, kBatchBytes));
  old_table_ = node_.refcount_table_;
  begun_ = true;
  node_.became_free_ = node_.pass_discard_other_ ? &given_up_ : nullptr;
  node_.refcounts_->forget(area_ * cluster, area.count * cluster);
  node_.refcount_table_.resize(table * cluster / 8);
  co_await copy_blocks();

  table_place_ = next_ * cluster;
  next_ += table;
  co_await node_.change_refcount(area_, next_ - area_, +1);
  for (const uint64_t block : old_table_)
    if (block != 0) co_await node_.change_refcount(block / cluster, 1, -1);
  co_await node_.change_refcount(node_.header_.refcount_table_offset / cluster,
                                 node_.header_.refcount_table_clusters, -1);
  node_.became_free_ = node_.pass_discard_snapshot_ ? &given_up_ : nullptr;
}

// Finds where a new snapshot's L1 table and the list are to be in the end. Where that needs new
// refcount blocks everything stays in the area.
Task<void> SnapshotSwitch::reserve(uint64_t l1_clusters, uint64_t list_clusters) {
  const Header& header = node_.header_;
  const uint64_t cluster = node_.cluster();
  const uint64_t per_block = header.refcounts_per_block();
  old_ = {.disk_bytes = header.size,
          .l1_entries = header.l1_entries,
          .l1_place = header.l1_offset,
          .table_place = header.refcount_table_offset,
          .table_clusters = header.refcount_table_clusters,
          .list_place = header.snapshots_offset};
  file_bytes_ = node_.file_->length();
  may_settle_ = old_.l1_entries != 0 && old_.table_clusters != 0;
  const uint64_t begin = node_.free_cursor_;
  for (const auto& [clusters, place] :
       {std::pair(l1_clusters, &l1_reserved_), std::pair(list_clusters, &list_reserved_)}) {
    if (clusters == 0 || !may_settle_) continue;
    const Qcow2Node::Run run = co_await node_.find_free(clusters, clusters);
    for (uint64_t i = run.first / per_block; i <= (run.first + clusters - 1) / per_block; ++i)
      may_settle_ = may_settle_ && node_.refcount_block(i) != 0;
    *place = run.first * cluster;
    node_.free_cursor_ = run.first + clusters;
  }
  may_settle_ = may_settle_ && (l1_clusters == 0 || l1_reserved_ != 0) &&
                (list_clusters == 0 || list_reserved_ != 0);
  if (!may_settle_) node_.free_cursor_ = begin;
}

// Copies the blocks into the area, and adds empty ones that count the area itself.
Task<void> SnapshotSwitch::copy_blocks() {
  const uint64_t cluster = node_.cluster();
  const uint64_t per_block = node_.header_.refcounts_per_block();
  for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
    const uint64_t old = i < old_table_.size() ? old_table_[i] : 0;
    const bool counts_area = i >= area_ / per_block && i <= (end_ - 1) / per_block;
    if (old == 0 && !counts_area) continue;
    if (pending_bytes_ + cluster > pending_.size()) co_await write_pending();
    if (pending_bytes_ == 0) pending_place_ = next_ * cluster;
    const MutableByteSpan into = pending_.span().subspan(pending_bytes_, cluster);
    if (old != 0)
      co_await node_.file_->read(old, into);
    else
      std::memset(into.data(), 0, into.size());
    pending_bytes_ += cluster;
    node_.refcount_table_[i] = next_++ * cluster;
  }
  co_await write_pending();
}

Task<void> SnapshotSwitch::write_pending() {
  if (pending_bytes_ != 0)
    co_await node_.file_->write(pending_place_, pending_.span().first(pending_bytes_));
  pending_bytes_ = 0;
}

// The next CLUSTERS of the area, counted once.
Task<uint64_t> SnapshotSwitch::take(uint64_t clusters) {
  const uint64_t place = next_;
  if (clusters > end_ - next_) throw Error(ErrorKind::kCorrupt, "qcow2: a table grew meanwhile");
  next_ += clusters;
  co_await node_.change_refcount(place, clusters, +1);
  const uint64_t offset = place * node_.cluster();
  co_return offset;
}

Task<void> SnapshotSwitch::load(uint64_t table) {
  if (!is_aligned(table, node_.cluster())) node_.corrupt("L2 table offset unaligned");
  co_await node_.file_->read(table, table_.span());
}

// What the loaded table refers to.
std::vector<SnapshotSwitch::Piece> SnapshotSwitch::pieces(bool compressed_too) const {
  const size_t width = node_.header_.l2_entry_bytes();
  const uint64_t cluster = node_.cluster();
  std::vector<Piece> all;
  for (size_t i = 0; i < table_.size() / width; ++i) {
    const auto word = load_be<uint64_t>(table_.span(), i * width);
    if (word & kCompressed) {
      if (!compressed_too) continue;
      const CompressedPlace place = CompressedPlace::decode(word, node_.header_.cluster_bits);
      const uint64_t first = place.offset / cluster;
      all.push_back({first, div_ceil(place.offset + place.length, cluster) - first, i});
      continue;
    }
    const uint64_t host = word & kOffsetMask;
    if (host == 0) continue;
    if (!is_aligned(host, cluster)) node_.corrupt("Cluster allocation offset unaligned");
    if (!all.empty() && all.back().first + all.back().count == host / cluster &&
        all.back().entry + all.back().count == i)
      ++all.back().count;
    else
      all.push_back({host / cluster, 1, i});
  }
  return all;
}

// For every entry of the loaded table: is the counter of its cluster one?
Task<void> SnapshotSwitch::find_ones(std::vector<uint8_t>& ones) {
  const uint64_t per_block = node_.header_.refcounts_per_block();
  const unsigned order = node_.header_.refcount_order;
  const std::vector<Piece> all = pieces(false);
  for (const Piece& piece : all) {
    for (uint64_t done = 0; done < piece.count;) {
      const uint64_t at = piece.first + done;
      const uint64_t some = std::min(piece.count - done, per_block - at % per_block);
      const uint64_t place = node_.refcount_block(at / per_block);
      if (place != 0) {
        const TableCache::Ref ref = co_await node_.refcounts_->get(place);
        for (uint64_t i = 0; i < some; ++i)
          ones[piece.entry + done + i] = get_refcount(ref.bytes(), at % per_block + i, order) == 1;
      }
      done += some;
    }
  }
}

// Puts the loaded table into the area.
Task<uint64_t> SnapshotSwitch::store_copy(uint64_t before) {
  if (pending_bytes_ + table_.size() > pending_.size()) co_await write_pending();
  const uint64_t place = co_await take(1);
  if (pending_bytes_ == 0) pending_place_ = place;
  std::memcpy(pending_.data() + pending_bytes_, table_.data(), table_.size());
  pending_bytes_ += table_.size();
  moved_.push_back({before, place});
  co_return place;
}

Task<void> SnapshotSwitch::count_clusters(uint64_t offset, uint64_t clusters, int delta) {
  if (clusters != 0) co_await node_.change_refcount(offset / node_.cluster(), clusters, delta);
}

Task<void> SnapshotSwitch::count(std::span<const uint64_t> tables, int delta) {
  uint64_t done = 0;
  for (const uint64_t entry : tables) {
    report_work(node_.context(), "count", done++, tables.size());
    const uint64_t table = entry & kOffsetMask;
    if (table == 0) continue;
    co_await load(table);
    const std::vector<Piece> all = pieces(true);
    for (const Piece& piece : all) co_await node_.change_refcount(piece.first, piece.count, delta);
    co_await count_clusters(table, 1, delta);
  }
  report_work(node_.context(), "count", done, tables.size());
}

Task<void> SnapshotSwitch::share(std::vector<uint64_t>& active) {
  const size_t width = node_.header_.l2_entry_bytes();
  uint64_t done = 0;
  for (uint64_t& entry : active) {
    report_work(node_.context(), "share", done++, active.size());
    const uint64_t table = entry & kOffsetMask;
    entry = table;
    if (table == 0) continue;
    co_await load(table);
    const std::vector<Piece> all = pieces(true);
    for (const Piece& piece : all) co_await node_.change_refcount(piece.first, piece.count, +1);
    bool changed = false;
    for (size_t at = 0; at < table_.size(); at += width) {
      const auto word = load_be<uint64_t>(table_.span(), at);
      if (!(word & kCopied) || (word & kCompressed)) continue;
      store_be<uint64_t>(table_.span(), at, word & ~kCopied);
      changed = true;
    }
    if (changed) {
      co_await count_clusters(table, 1, -1);
      entry = co_await store_copy(table);
    }
    co_await count_clusters(entry, 1, +1);
  }
  report_work(node_.context(), "share", done, active.size());
  co_await write_pending();
}

Task<void> SnapshotSwitch::renew_copied(std::vector<uint64_t>& active) {
  const size_t width = node_.header_.l2_entry_bytes();
  std::vector<uint8_t> ones;
  uint64_t done = 0;
  for (uint64_t& entry : active) {
    report_work(node_.context(), "mark", done++, active.size());
    const uint64_t table = entry & kOffsetMask;
    entry = table;
    if (table == 0) continue;
    co_await load(table);
    ones.assign(table_.size() / width, 0);
    co_await find_ones(ones);
    bool changed = false;
    for (size_t i = 0; i < ones.size(); ++i) {
      const auto word = load_be<uint64_t>(table_.span(), i * width);
      if ((word & kCompressed) || ((word & kCopied) != 0) == (ones[i] != 0)) continue;
      store_be<uint64_t>(table_.span(), i * width, word ^ kCopied);
      changed = true;
    }
    if (changed) {
      co_await count_clusters(table, 1, -1);
      entry = co_await store_copy(table);
    }
    const uint64_t users = co_await node_.refcount(entry / node_.cluster());
    if (users == 1) entry |= kCopied;
  }
  report_work(node_.context(), "mark", done, active.size());
  co_await write_pending();
}

Task<uint64_t> SnapshotSwitch::write_l1(std::span<const uint64_t> entries) {
  const uint64_t place = co_await take(div_ceil(entries.size() * 8, node_.cluster()));
  std::vector<std::byte> bytes(entries.size() * 8);
  for (size_t i = 0; i < entries.size(); ++i) store_be<uint64_t>(bytes, i * 8, entries[i]);
  if (!bytes.empty()) co_await node_.file_->write(place, bytes);
  co_return place;
}

Task<void> SnapshotSwitch::finish(const std::vector<uint64_t>& active,
                                  std::vector<SnapshotEntry> snapshots, uint64_t disk_bytes) {
  const uint64_t cluster = node_.cluster();
  Header& header = node_.header_;
  const std::vector<uint64_t> old_active = node_.l1_entries();
  uint64_t old_list_bytes = 0;
  for (const SnapshotEntry& one : node_.snapshots_) old_list_bytes += one.encoded_bytes;

  const uint64_t l1_place = co_await write_l1(active);
  std::vector<std::byte> list;
  for (SnapshotEntry& one : snapshots) {
    const size_t before = list.size();
    one.encode(list);
    one.encoded_bytes = list.size() - before;
  }
  uint64_t list_place = 0;
  if (!list.empty()) {
    list_place = co_await take(div_ceil(list.size(), cluster));
    co_await node_.file_->write(list_place, list);
  }
  // What follows are tables; the clusters that they leave are not the snapshot's.
  node_.became_free_ = node_.pass_discard_other_ ? &given_up_ : nullptr;
  co_await count_clusters(header.l1_offset, div_ceil(old_active.size() * 8, cluster), -1);
  co_await count_clusters(header.snapshots_offset, div_ceil(old_list_bytes, cluster), -1);
  co_await node_.refcounts_->write_back();
  std::vector<std::byte> table(node_.refcount_table_.size() * 8);
  for (size_t i = 0; i < node_.refcount_table_.size(); ++i)
    store_be<uint64_t>(table, i * 8, node_.refcount_table_[i]);
  co_await node_.file_->write(table_place_, table);
  co_await node_.file_->flush();

  const Roots roots{.disk_bytes = disk_bytes,
                    .l1_entries = active.size(),
                    .l1_place = l1_place,
                    .table_place = table_place_,
                    .table_clusters = table.size() / cluster,
                    .list_place = list_place};
  co_await write_roots(roots, snapshots.size());
  done_ = true;
  for (const uint64_t block : old_table_)
    if (block != 0) node_.refcounts_->forget(block, cluster);
  for (const uint64_t entry : old_active)
    if (const uint64_t place = entry & kOffsetMask) node_.l2_->forget(place, cluster);
  adopt(roots, active, std::move(snapshots));
  co_await node_.file_->flush();
  // Only now nothing on the disk refers to them.
  node_.became_free_ = nullptr;
  for (const Qcow2Node::Run& run : given_up_) co_await node_.discard_unused(run.first, run.count);
  co_await settle();
  co_await node_.note_inactive_tables();
}

Task<void> SnapshotSwitch::write_roots(Roots roots, size_t snapshots) {
  std::byte fields[48];
  store_be<uint64_t>(fields, 0, roots.disk_bytes);
  store_be<uint32_t>(fields, 8, node_.header_.crypt_method);
  store_be<uint32_t>(fields, 12, static_cast<uint32_t>(roots.l1_entries));
  store_be<uint64_t>(fields, 16, roots.l1_place);
  store_be<uint64_t>(fields, 24, roots.table_place);
  store_be<uint32_t>(fields, 32, static_cast<uint32_t>(roots.table_clusters));
  store_be<uint32_t>(fields, 36, static_cast<uint32_t>(snapshots));
  store_be<uint64_t>(fields, 40, roots.list_place);
  co_await node_.file_->write(24, fields);
}

// The node becomes what the header says by now; refcount_table_ is that already.
void SnapshotSwitch::adopt(Roots roots, const std::vector<uint64_t>& active,
                           std::vector<SnapshotEntry> snapshots) {
  const uint64_t cluster = node_.cluster();
  Header& header = node_.header_;
  header.size = roots.disk_bytes;
  header.l1_entries = static_cast<uint32_t>(active.size());
  header.l1_offset = roots.l1_place;
  header.refcount_table_offset = roots.table_place;
  header.refcount_table_clusters = static_cast<uint32_t>(roots.table_clusters);
  header.snapshot_count = static_cast<uint32_t>(snapshots.size());
  header.snapshots_offset = roots.list_place;
  node_.set_length(roots.disk_bytes);
  node_.use_l1(active);
  node_.snapshots_ = std::move(snapshots);
  node_.compressed_cursor_ = 0;
  node_.virgin_ = std::max(node_.virgin_, end_ * cluster);
  std::lock_guard lock(node_.tables_mutex_);
  node_.table_clusters_.clear();
  node_.block_clusters_.clear();
  for (const uint64_t entry : active)
    if (const uint64_t place = entry & kOffsetMask) node_.table_clusters_.insert(place / cluster);
  for (const uint64_t block : node_.refcount_table_)
    if (block != 0) node_.block_clusters_.insert(block / cluster);
}

}  // namespace cairn
