#include <algorithm>

#include "base/arith.h"
#include "format/qcow2/node.h"
#include "platform/types.h"

namespace cairn {

using namespace qcow2;

namespace {
constexpr uint64_t kAllZero = 0xffffffff00000000;
}

// Whether a range within a slice begins or ends inside of a compressed cluster, which has no
// subclusters: all of it is written then, as QEMU does.
bool Qcow2Node::cuts_compressed(const TableCache::Ref& ref, uint64_t offset,
                                uint64_t length) const {
  const uint64_t end = offset + length;
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  const auto compressed = [&](size_t index) {
    return index < entries && (load_entry(ref, index).word & kCompressed) != 0;
  };
  const bool cut_end = !is_aligned(end, cluster()) && end != this->length();
  if (!is_aligned(offset, cluster()) && compressed(slice_index(offset))) return true;
  return cut_end &&
         compressed(slice_index(offset) +
                    (align_down(end, cluster()) - align_down(offset, cluster())) / cluster());
}

// The results are those of the table "write zeroes" in docs/formats/qcow2.md.
Task<uint64_t> Qcow2Node::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  if (header_.version < 3) {
    if (lies_on_backing()) co_return 0;
    co_await discard_mapped(offset, length);
    co_return length;
  }
  std::vector<HostRange> kept;
  const Slice held = co_await writable_slice(offset);
  const uint64_t unit = cluster() / subclusters();
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  if (cuts_compressed(held.ref, offset, length)) co_return 0;
  uint64_t at = offset;
  bool changed = false;
  for (size_t index = slice_index(offset); at < offset + length && index < entries; ++index) {
    const uint64_t start = align_down(at, cluster());
    const uint64_t end = std::min(start + cluster(), offset + length);
    const bool whole = at == start && (end == start + cluster() || end == this->length());
    const Entry old = load_entry(held.ref, index);
    check_entry(old, at);
    co_await zero_external(at, end - at, may_unmap);
    Entry now;
    const bool keep = !(old.word & kCompressed) && has_host(old.word) &&
                      (!may_unmap || discard_no_unref_ || !whole);
    if (keep) now.word = old.word;
    if (header_.extended_l2()) {
      const uint64_t from = (at - start) / unit;
      const uint64_t to = div_ceil(end - start, unit);
      const uint64_t mask = ((uint64_t{1} << to) - 1) & ~((uint64_t{1} << from) - 1);
      now.bitmap = (keep || !whole ? old.bitmap & ~mask : 0) | mask << 32;
    } else {
      now.word |= kZeroFlag;
    }
    if (now.word != old.word || now.bitmap != old.bitmap) {
      store_entry(held.ref, index, now);
      if (!keep) release_entry(old, may_unmap ? Freed::kRequest : Freed::kReplaced);
      if (keep && may_unmap && whole) note_kept(kept, old);
      changed = true;
    }
    at = end;
  }
  if (changed) l2_->mark_dirty(held.ref);
  co_await discard_kept(std::move(kept));
  co_await apply_frees_if_many();
  co_return at - offset;
}

Task<void> Qcow2Node::discard_mapped(uint64_t offset, uint64_t length) {
  const bool below = lies_on_backing();
  if (header_.version < 3 && below) co_return;
  const uint64_t end = offset + length;
  if (external_) co_await discard_external(offset, length);
  std::vector<HostRange> kept;
  while (offset < end) {
    const uint64_t range_end =
        std::min(end, align_down(offset, header_.l2_range()) + header_.l2_range());
    if ((l1_entry(offset / header_.l2_range()) & kOffsetMask) == 0 && !below) {
      offset = range_end;
      continue;
    }
    const Slice held = co_await writable_slice(offset);
    const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
    bool changed = false;
    for (size_t index = slice_index(offset); offset < range_end && index < entries; ++index) {
      const Entry old = load_entry(held.ref, index);
      check_entry(old, offset);
      // Zeroes without a place stay what they are.
      const bool nothing = !(old.word & kCompressed) && !has_host(old.word);
      if (!nothing || below) {
        const bool keep = discard_no_unref_ && !(old.word & kCompressed) && has_host(old.word);
        Entry now;
        if (keep) now.word = old.word;
        if (header_.extended_l2())
          now.bitmap = kAllZero;
        else if (header_.version >= 3)
          now.word |= kZeroFlag;
        if (now.word != old.word || now.bitmap != old.bitmap) {
          store_entry(held.ref, index, now);
          if (!keep) release_entry(old, Freed::kRequest);
          if (keep) note_kept(kept, old);
          changed = true;
        }
      }
      offset = std::min(align_down(offset, cluster()) + cluster(), range_end);
    }
    if (changed) l2_->mark_dirty(held.ref);
  }
  co_await discard_kept(std::move(kept));
  co_await apply_frees_if_many();
}

// What reads as zeroes and keeps its place: with discard-no-unref the file still learns that
// nothing is there. The range is locked, nobody writes there meanwhile.
void Qcow2Node::note_kept(std::vector<HostRange>& kept, Entry entry) const {
  const uint64_t host = entry.word & kOffsetMask;
  if (external_ || !pass_discard_request_ || !(entry.word & kCopied)) return;
  if (!kept.empty() && kept.back().offset + kept.back().length == host)
    kept.back().length += cluster();
  else
    kept.push_back({host, cluster()});
}

Task<void> Qcow2Node::discard_kept(std::vector<HostRange> kept) {
  for (const HostRange& range : kept) co_await file_->discard(range.offset, range.length);
}

Task<void> Qcow2Node::flush_mapped() {
  if (unusable_.load()) {
    co_await change_marks(kIncompatCorrupt, 0);
    throw Error::system(ENOMEDIUM);
  }
  co_await apply_frees();
  if (external_) co_await data_->flush();
  co_await l2_->write_back();
  if (!lazy_) co_await refcounts_->write_back();
  co_await file_->flush();
}

Task<void> Qcow2Node::do_close() {
  co_await end_cleaner();
  if (read_only() || metadata_only_ || l2_ == nullptr) co_return;
  if (unusable_.load()) {
    // The program may end as soon as the image is closed.
    co_await corrupt_marked_.acquire();
    try {
      co_await flush_mapped();
    } catch (const Error&) {
      // The request that met the damage has reported it.
    }
    co_return;
  }
  co_await flush_mapped();
  co_await store_bitmaps();
  if (wrote_compressed_.load() && !is_aligned(file_->length(), 512))
    co_await file_->resize({.length = align_up(file_->length(), 512), .exact = false});
  co_await end_lazy();
}

}  // namespace cairn
