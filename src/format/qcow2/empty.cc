#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// An image becomes as it was made: header, refcount table, one block, an empty L1 table, and
// nothing after them. For images that are laid out as fresh ones and have nothing besides guest
// data; false for others. The L1 table is emptied first, so that what a crash leaves are clusters
// that are counted and belong to nobody.
Task<bool> Qcow2Node::start_over() {
  const uint64_t l1_clusters = div_ceil(l1_count_ * 8, cluster());
  const uint64_t kept = 3 + l1_clusters;
  const bool plain = header_.version >= 3 && snapshots_.empty() && !extensions_.bitmaps &&
                     header_.crypt_method == 0 && !external_;
  const bool fresh_layout =
      header_.refcount_table_offset == cluster() && header_.refcount_table_clusters == 1 &&
      refcount_table_[0] == 2 * cluster() && header_.l1_offset == 3 * cluster();
  if (!plain || !fresh_layout || kept > header_.refcounts_per_block()) co_return false;

  std::vector<std::byte> nothing(align_up(l1_count_ * 8, cluster()));
  co_await file_->write(header_.l1_offset, ByteSpan(nothing).first(l1_count_ * 8));
  co_await file_->flush();
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  for (uint64_t i = 0; i < l1_count_; ++i) {
    const uint64_t table = l1_entry(i) & kOffsetMask;
    if (table == 0) continue;
    l2_->forget(table, cluster());
    set_l1_entry(i, 0);
    std::lock_guard lock(tables_mutex_);
    table_clusters_.erase(table / cluster());
  }
  nothing.assign(cluster(), std::byte{0});
  co_await file_->write(header_.refcount_table_offset + 8, ByteSpan(nothing).subspan(8));
  co_await file_->flush();
  for (uint64_t& block : refcount_table_) {
    if (block == 0) continue;
    refcounts_->forget(block, cluster());
    if (block == 2 * cluster()) continue;
    std::lock_guard lock(tables_mutex_);
    block_clusters_.erase(block / cluster());
    block = 0;
  }
  for (uint64_t i = 0; i < kept; ++i) set_refcount(nothing, i, header_.refcount_order, 1);
  co_await file_->write(2 * cluster(), nothing);
  co_await file_->flush();
  free_cursor_ = compressed_cursor_ = 0;
  try {
    co_await file_->resize({.length = kept * cluster()});
    if (file_->reads_zero_when_created()) virgin_ = kept * cluster();
  } catch (const Error& error) {
    context().warn("Failed to truncate the tail of the image: " + error.cause());
  }
  co_return true;
}

}  // namespace cairn
