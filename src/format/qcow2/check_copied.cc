#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "base/buffer.h"
#include "format/qcow2/check.h"

namespace cairn {

using namespace qcow2;

// The COPIED flags of the active tables against the counters as the image has them by now. The walk
// has noticed whether any differed; only then, or when counters were changed, are the tables read
// once more.

// The counter of CLUSTER in the image; nothing when it cannot be read.
Task<std::optional<uint64_t>> Qcow2Checker::says(uint64_t cluster) {
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t index = cluster / per_block;
  const uint64_t block = block_place(index);
  if (block == 0) co_return 0;
  if (!readable_block(index)) co_return std::nullopt;
  if (cluster < counts_.size() && says_one(cluster)) co_return 1;
  if (said_block_ != block) {
    if (said_.size() == 0) said_ = AlignedBuffer(cluster_);
    co_await node_.file_->read(block, said_.span());
    said_block_ = block;
  }
  co_return get_refcount(said_.span(), cluster % per_block, header_.refcount_order);
}

Task<void> Qcow2Checker::check_copied() {
  const bool counters_changed = journal_ && journal_->changed_something();
  if (counters_changed) co_await load_refcounts();
  said_block_ = 0;
  if (gave_up_ || (!copied_differs_ && !counters_changed)) co_return;
  const bool nothing_else =
      result_.corruptions == 0 && result_.leaks == 0 && result_.check_errors == 0;
  const bool repair = fixes_all() || (fixes_leaks() && nothing_else);
  walks_left_ = 4 * counts_.size() + kMinWalks;
  AlignedBuffer table(cluster_);
  AlignedBuffer l1(kStretch * 8);
  bool l1_changed = false;
  for (uint64_t first = 0; first < node_.l1_count_; first += kStretch) {
    const uint64_t some = std::min(node_.l1_count_ - first, kStretch);
    const uint64_t place = header_.l1_offset + first * 8;
    co_await node_.file_->read(place, l1.span().first(some * 8));
    for (uint64_t i = 0; i < some; ++i) {
      const uint64_t entry = load_be<uint64_t>(l1.span(), i * 8);
      const uint64_t l2 = entry & kOffsetMask;
      if (l2 == 0) continue;
      const auto refcount = co_await says(l2 / cluster_);
      if (!refcount) continue;
      if ((*refcount == 1) != ((entry & kCopied) != 0)) {
        ++plan_.copied;
        told_.line("%s OFLAG_COPIED L2 cluster: l1_index=%llu l1_entry=%llx refcount=%llu",
                   repair ? "Repairing" : "ERROR", ull(first + i), ull(entry), ull(*refcount));
        if (repair) {
          tell(told_);
          std::byte now[8];
          store_be<uint64_t>(now, 0, *refcount == 1 ? entry | kCopied : entry & ~kCopied);
          node_.check_overlap(place + i * 8, 8, kOverlapAll & ~kOverlapActiveL1);
          co_await write(place + i * 8, now);
          l1_changed = true;
          ++result_.corruptions_fixed;
        } else {
          ++result_.corruptions;
        }
      }
      if (l2 >= file_bytes_ || walks_left_ == 0) continue;
      --walks_left_;
      co_await node_.file_->read(l2, table.span());
      co_await copied_of_table(l2, table.span(), repair);
    }
  }
  tell(told_);
  if (repair) co_await commit();
  if (l1_changed) co_await node_.read_l1_table();
}

Task<void> Qcow2Checker::copied_of_table(uint64_t place, MutableByteSpan table, bool repair) {
  const unsigned width = header_.l2_entry_bytes();
  const bool counted_here = (header_.incompatible & kIncompatDataFile) == 0;
  bool changed = false;
  for (size_t at = 0; at < cluster_; at += width) {
    const uint64_t entry = load_be<uint64_t>(table, at);
    const uint64_t host = entry & kOffsetMask;
    if ((entry & kCompressed) || (host == 0 && (counted_here || (entry & kCopied) == 0))) continue;
    uint64_t refcount = 1;
    if (counted_here) {
      if (says_one(host / cluster_) == ((entry & kCopied) != 0) && host / cluster_ < counts_.size())
        continue;
      const auto found = co_await says(host / cluster_);
      if (!found) continue;
      refcount = *found;
    }
    if ((refcount == 1) == ((entry & kCopied) != 0)) continue;
    ++plan_.copied;
    told_.line("%s OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu",
               repair ? "Repairing" : "ERROR", ull(entry), ull(refcount));
    if (repair) {
      store_be<uint64_t>(table, at, refcount == 1 ? entry | kCopied : entry & ~kCopied);
      changed = true;
      ++result_.corruptions_fixed;
    } else {
      ++result_.corruptions;
    }
    if (told_.lines.size() > 1000) tell(told_);
  }
  if (!changed) co_return;
  tell(told_);
  node_.check_overlap(place, cluster_, kOverlapAll & ~kOverlapActiveL2);
  co_await write(place, table);
}

}  // namespace cairn
