#include <algorithm>

#include "base/arith.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Giving ranges back to the layer below, where a discard leaves zeroes. The order is that of every
// change of mappings: what is given up is free when the tables that gave it up are on disk.

Task<uint64_t> Qcow2Node::unmap(uint64_t offset, uint64_t length) {
  if (read_only()) throw Error::system(EACCES);
  const auto end = checked_add(offset, length);
  if (!end || *end > this->length()) throw Error::system(EINVAL);
  if (external_ || length == 0) co_return 0;
  const uint64_t first = align_down(offset, cluster());
  RangeLock::Guard guard;
  co_await ranges().acquire(guard, first, align_up(*end, cluster()) - first, true);
  const uint64_t done = co_await unmap_locked(offset, length);
  mark_dirty(offset, done);
  co_await apply_frees_if_many();
  co_return done;
}

// Up to the first cluster of which only a part could not be given back.
Task<uint64_t> Qcow2Node::unmap_locked(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const uint64_t unit = cluster() / subclusters();
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  uint64_t at = offset;
  bool possible = true;
  while (possible && at < end) {
    const uint64_t range_end =
        std::min(end, align_down(at, header_.l2_range()) + header_.l2_range());
    if ((l1_entry(at / header_.l2_range()) & kOffsetMask) == 0) {
      at = range_end;
      continue;
    }
    const Slice held = co_await writable_slice(at);
    bool changed = false;
    for (size_t index = slice_index(at); at < range_end && index < entries; ++index) {
      const uint64_t start = align_down(at, cluster());
      const uint64_t next = std::min(start + cluster(), range_end);
      const bool whole = at == start && (next == start + cluster() || next == this->length());
      const Entry old = load_entry(held.ref, index);
      check_entry(old, at);
      Entry now;
      if (!whole && (old.word != 0 || old.bitmap != 0)) {
        possible = header_.extended_l2() && !(old.word & kCompressed);
        if (!possible) break;
        const uint64_t mask = ((uint64_t{1} << div_ceil(next - start, unit)) - 1) &
                              ~((uint64_t{1} << (at - start) / unit) - 1);
        now = {old.word, old.bitmap & ~(mask | mask << 32)};
      }
      at = next;
      if (now.word == old.word && now.bitmap == old.bitmap) continue;
      store_entry(held.ref, index, now);
      if (now.word == 0) release_entry(old, Freed::kSnapshot);
      changed = true;
    }
    if (changed) l2_->mark_dirty(held.ref);
  }
  co_return at - offset;
}

}  // namespace cairn
