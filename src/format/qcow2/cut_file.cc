#include <unordered_set>

#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// A file that was cut off is not opened for writing: the first allocation would make it longer, and
// what is missing zeroes. The reference counts show cheaply whether clusters are missing. After a
// crash such clusters may be in use by nobody, so the tables decide.

Task<void> Qcow2Node::refuse_cut_file() {
  if (read_only() || context().profile.past_end != PastEnd::kRefuse) co_return;
  bool lacks = external_ && data_->length() < length();
  if (!lacks) lacks = co_await lacks_clusters();
  if (!lacks) co_return;
  std::unordered_set<uint64_t> seen;
  const std::vector<uint64_t> active = l1_entries();
  co_await refuse_missing(active, seen);
  for (const SnapshotEntry& snapshot : snapshots_) {
    const std::vector<uint64_t> entries = co_await read_l1(snapshot);
    co_await refuse_missing(entries, seen);
  }
}

// Whether the file ends before the last cluster that is counted.
Task<bool> Qcow2Node::lacks_clusters() {
  // The counts of these may be too low.
  if ((header_.incompatible & kIncompatDirty) != 0) co_return true;
  const uint64_t end = div_ceil(file_->length(), cluster());
  for (uint64_t i = 0; i < l1_count_; ++i)
    if ((l1_entry(i) & kOffsetMask) / cluster() >= end) co_return true;
  const uint64_t per_block = header_.refcounts_per_block();
  for (size_t i = refcount_table_.size(); i-- > end / per_block;) {
    if (refcount_table_[i] == 0) continue;
    const TableCache::Ref ref = co_await refcounts_->get(refcount_table_[i]);
    for (uint64_t c = per_block; c-- > 0 && i * per_block + c >= end;)
      if (get_refcount(ref.bytes(), c, header_.refcount_order) != 0) co_return true;
  }
  co_return false;
}

// Throws when the file lacks a table, or data, that L1 leads to. Tables that are in SEEN were
// looked at before.
Task<void> Qcow2Node::refuse_missing(std::span<const uint64_t> l1,
                                     std::unordered_set<uint64_t>& seen) {
  const unsigned width = header_.l2_entry_bytes();
  std::vector<std::byte> table(cluster());
  for (size_t i = 0; i < l1.size(); ++i) {
    const uint64_t place = l1[i] & kOffsetMask;
    if (place == 0 || !is_aligned(place, cluster()) || !seen.insert(place).second) continue;
    co_await read_table(*file_, place, table);
    for (uint64_t at = 0; at < cluster(); at += width) {
      const uint64_t entry = load_be<uint64_t>(table, at);
      const uint64_t bitmap = width == 16 ? load_be<uint64_t>(table, at + 8) : 0;
      const uint64_t offset = i * header_.l2_range() + at / width * cluster();
      uint64_t host = entry & kOffsetMask;
      uint64_t bytes = cluster();
      Node* node = data_;
      if (entry & kCompressed) {
        host = CompressedPlace::decode(entry, header_.cluster_bits).offset;
        bytes = 1;
        node = file_;
      } else if (!has_host(entry) ||
                 (width == 16 ? (bitmap & 0xffffffff) == 0 : (entry & kZeroFlag) != 0)) {
        continue;
      }
      if (reaches_past_end(*node, host, bytes)) co_await stored_bytes(node, host, offset, bytes);
    }
  }
}

}  // namespace cairn
