#include <algorithm>
#include <set>

#include "async/finally.h"
#include "base/arith.h"
#include "block/driver.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Another width for all counters: blocks and table are written again after what is in use, counted
// by the old ones meanwhile; then the header switches table and width in one write. The new
// counters know nothing of the old table and its blocks, which so become free with the switch.

namespace {

std::string too_narrow(unsigned bits, uint64_t offset, uint64_t count) {
  char text[160];
  std::snprintf(text, sizeof text,
                "Cannot decrease refcount entry width to %u bits: Cluster at offset %#llx has a "
                "refcount of %llu",
                bits, static_cast<unsigned long long>(offset),
                static_cast<unsigned long long>(count));
  return text;
}

}  // namespace

// The numbers of the new blocks that count anything, in order.
Task<std::set<uint64_t>> Qcow2Node::new_refcount_blocks(unsigned order) {
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t new_per_block = cluster() * 8 >> order;
  const uint64_t most = order == 6 ? UINT64_MAX : (uint64_t{1} << (1u << order)) - 1;
  std::set<uint64_t> used;
  for (size_t i = 0; i < refcount_table_.size(); ++i) {
    if (refcount_table_[i] == 0) continue;
    const TableCache::Ref ref = co_await refcounts_->get(refcount_table_[i]);
    for (uint64_t c = 0; c < per_block; ++c) {
      const uint64_t count = get_refcount(ref.bytes(), c, header_.refcount_order);
      if (count == 0) continue;
      const uint64_t index = i * per_block + c;
      if (count > most)
        throw Error(ErrorKind::kInvalid, too_narrow(1u << order, index * cluster(), count));
      used.insert(index / new_per_block);
    }
  }
  co_return used;
}

Task<void> Qcow2Node::change_refcount_width(unsigned order, const AmendRequest& request) {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  Run area;
  std::set<uint64_t> used;
  uint64_t table_clusters = 0;
  while (true) {
    used = co_await new_refcount_blocks(order);
    table_clusters = div_ceil((*used.rbegin() + 1) * 8, cluster());
    if (table_clusters * cluster() > kMaxRefcountTableBytes) throw Error::system(EFBIG);
    const uint64_t needed = used.size() + table_clusters;
    if (needed <= area.count) break;
    if (area.count != 0) co_await change_refcount(area.first, area.count, -1);
    // Room for what counts the room itself.
    const uint64_t wanted = needed + 2 + needed * 2 / (cluster() * 8 >> order);
    area = co_await allocate_locked(wanted, wanted, kClusterAtZero);
  }
  co_await on_failure(
      [&]() -> Task<void> {
        co_await switch_refcounts(order, area, used, table_clusters, request);
      },
      [&]() -> Task<void> {
        if (header_.refcount_order != order) co_await change_refcount(area.first, area.count, -1);
      });
}

Task<void> Qcow2Node::switch_refcounts(unsigned order, Run area, const std::set<uint64_t>& used,
                                       uint64_t table_clusters, const AmendRequest& request) {
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t new_per_block = cluster() * 8 >> order;
  const uint64_t taken = used.size() + table_clusters;
  std::unordered_set<uint64_t> gone;
  for (uint64_t i = 0; i < header_.refcount_table_clusters; ++i)
    gone.insert(header_.refcount_table_offset / cluster() + i);
  for (const uint64_t block : refcount_table_)
    if (block != 0) gone.insert(block / cluster());
  for (uint64_t i = taken; i < area.count; ++i) gone.insert(area.first + i);

  std::vector<uint64_t> table(table_clusters * cluster() / 8);
  std::vector<std::byte> block(cluster());
  uint64_t place = area.first + table_clusters;
  for (const uint64_t index : used) {
    std::fill(block.begin(), block.end(), std::byte{0});
    for (uint64_t c = index * new_per_block; c < (index + 1) * new_per_block;) {
      const uint64_t old = c / per_block;
      const uint64_t end = std::min((index + 1) * new_per_block, (old + 1) * per_block);
      if (old < refcount_table_.size() && refcount_table_[old] != 0) {
        const TableCache::Ref ref = co_await refcounts_->get(refcount_table_[old]);
        for (uint64_t at = c; at < end; ++at) {
          const uint64_t count = get_refcount(ref.bytes(), at % per_block, header_.refcount_order);
          if (count != 0 && !gone.contains(at))
            set_refcount(block, at % new_per_block, order, count);
        }
      }
      c = end;
    }
    co_await file_->write(place * cluster(), block);
    table[index] = place++ * cluster();
    if (request.progress) request.progress(place - area.first, taken + 1);
  }
  std::vector<std::byte> bytes(table_clusters * cluster());
  for (size_t i = 0; i < table.size(); ++i) store_be<uint64_t>(bytes, i * 8, table[i]);
  co_await file_->write(area.first * cluster(), bytes);
  co_await refcounts_->write_back();
  co_await file_->flush();

  // One write from the table's place to the width, all in the first sector.
  Header header = header_;
  header.refcount_order = order;
  header.refcount_table_offset = area.first * cluster();
  header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  const std::vector<std::byte> first = encode_first_cluster(header, extensions_);
  co_await write_header_field(48, ByteSpan(first).subspan(48, 52));
  {
    std::lock_guard lock(tables_mutex_);
    for (const uint64_t old : refcount_table_) {
      if (old == 0) continue;
      refcounts_->forget(old, cluster());
      block_clusters_.erase(old / cluster());
    }
    for (const uint64_t now : table)
      if (now != 0) block_clusters_.insert(now / cluster());
  }
  header_ = header;
  refcount_table_ = std::move(table);
  free_cursor_ = 0;
  compressed_cursor_ = 0;
  virgin_ = std::max(virgin_, (area.first + area.count) * cluster());
}

}  // namespace cairn
