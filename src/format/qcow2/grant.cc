#include <algorithm>
#include <bit>

#include "async/finally.h"
#include "base/arith.h"
#include "block/debug.h"
#include "format/qcow2/node.h"
#include "platform/types.h"

namespace cairn {

using namespace qcow2;

namespace {
// Bits [FROM, TO) of the 32 of a subcluster bitmap.
uint64_t bits(uint64_t from, uint64_t to) {
  return ((uint64_t{1} << to) - 1) & ~((uint64_t{1} << from) - 1);
}
}  // namespace

// As much as may be overwritten where it is: plain data that nobody shares, contiguous in the
// file.
Grant Qcow2Node::grant_in_place(const TableCache::Ref& ref, uint64_t offset, uint64_t length) {
  const uint64_t unit = cluster() / subclusters();
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  Grant place;
  place.offset = offset;
  size_t at = slice_index(offset);
  uint64_t end = offset;
  for (; end < offset + length && at < entries; ++at) {
    const Entry entry = load_entry(ref, at);
    if (!(entry.word & kCopied) || (entry.word & kCompressed)) break;
    check_entry(entry, end, Use::kWrite);
    const uint64_t host = (entry.word & kOffsetMask) + end % cluster();
    if (place.length == 0)
      place.host_offset = host;
    else if (host != place.host_offset + (end - offset))
      break;
    const uint64_t cluster_end = std::min(align_down(end, cluster()) + cluster(), offset + length);
    const uint64_t before = end;
    while (end < cluster_end &&
           classify(entry, static_cast<unsigned>(end % cluster() / unit)) == Type::kNormal)
      end = std::min(align_down(end, unit) + unit, cluster_end);
    if (end == before) break;
    place.length = end - offset;
    if (end < cluster_end) break;
  }
  if (place.length == 0) return {};
  if (!external_)
    check_overlap(align_down(place.host_offset, cluster()),
                  align_up(place.host_offset % cluster() + place.length, cluster()));
  place.host = data_;
  place.copy_begin = offset;
  place.copy_end = offset + place.length;
  return place;
}

// Has a place in the file that is its own, whether it shows what is there or not.
bool Qcow2Node::reusable(Entry entry) const {
  return (entry.word & kCopied) && !(entry.word & kCompressed) && has_host(entry.word);
}

// Space that clusters have but do not all show: allocated zero clusters, subclusters without data,
// and data between them, as far as the places are contiguous.
Grant Qcow2Node::grant_reuse(const TableCache::Ref& ref, uint64_t offset, uint64_t length) {
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  const size_t first = slice_index(offset);
  const Entry entry = load_entry(ref, first);
  const uint64_t start = align_down(offset, cluster());
  const uint64_t host = entry.word & kOffsetMask;
  const uint64_t unit = cluster() / subclusters();
  const size_t wanted = div_ceil(offset + length - start, cluster());
  Entry last = entry;
  size_t count = 1;
  for (; count < wanted && first + count < entries; ++count) {
    const Entry next = load_entry(ref, first + count);
    if (!reusable(next) || (next.word & kOffsetMask) != host + count * cluster()) break;
    check_entry(next, start + count * cluster(), Use::kWrite);
    last = next;
  }
  Grant place;
  place.offset = offset;
  place.length = std::min(length, start + count * cluster() - offset);
  place.host = data_;
  place.host_offset = host + offset % cluster();
  place.in_place = false;
  const uint64_t end = offset + place.length;
  const auto has_data = [&](Entry at_edge, uint64_t at) {
    return classify(at_edge, static_cast<unsigned>(at % cluster() / unit)) == Type::kNormal;
  };
  place.copy_begin = has_data(entry, offset) ? offset : align_down(offset, unit);
  place.copy_end = has_data(last, end - 1) ? end : align_up(end, unit);
  if (!external_) check_overlap(host, count * cluster());
  return place;
}

// The first subcluster that has data in ENTRY, and the one after the last.
std::pair<uint64_t, uint64_t> Qcow2Node::moved_units(Entry entry) const {
  if (entry.word & kCompressed) return {0, subclusters()};
  if (!has_host(entry.word)) return {subclusters(), 0};
  if (!header_.extended_l2()) return {0, 1};
  const auto data = static_cast<uint32_t>(entry.bitmap);
  if (data == 0) return {subclusters(), 0};
  return {std::countr_zero(data), 32 - std::countl_zero(data)};
}

Task<Grant> Qcow2Node::grant(uint64_t offset, uint64_t length, bool exclusive) {
  if (unusable_.load(std::memory_order_relaxed)) throw Error::system(ENOMEDIUM);
  const uint64_t l1 = l1_entry(offset / header_.l2_range());
  if (l1 & kCopied) {
    const uint64_t table = l1 & kOffsetMask;
    Slice held;
    if (is_aligned(table, cluster())) held.ref = try_slice(table, offset);
    if (!held.ref) held = co_await slice(table, offset);
    const Grant place = grant_in_place(held.ref, offset, length);
    // Where what follows has its place right after, all of it is one request.
    bool goes_on = false;
    const uint64_t end = place.offset + place.length;
    if (place.length != 0 && place.length < length && slice_index(end) > slice_index(offset)) {
      const Entry next = load_entry(held.ref, slice_index(end));
      const uint64_t host = (next.word & kOffsetMask) + end % cluster();
      goes_on = reusable(next) && host == place.host_offset + place.length;
    }
    if (place.length != 0 && !goes_on) co_return place;
  }
  if (!exclusive) co_return Grant{};

  const Slice held = co_await writable_slice(offset);
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  const size_t first = slice_index(offset);
  const Entry old = load_entry(held.ref, first);
  check_entry(old, offset, Use::kWrite);
  if (reusable(old)) co_return grant_reuse(held.ref, offset, length);

  const uint64_t start = align_down(offset, cluster());
  const uint64_t unit = cluster() / subclusters();
  const size_t wanted = div_ceil(offset + length - start, cluster());
  size_t most = 1;
  while (most < wanted && first + most < entries) {
    const Entry next = load_entry(held.ref, first + most);
    check_entry(next, start + most * cluster(), Use::kWrite);
    if (reusable(next)) break;
    ++most;
  }
  if (external_) co_return grant_external(most, offset, length);
  Grant place;
  bool virgin = false;
  uint64_t near = 0;
  {
    const std::lock_guard lock(goes_on_mutex_);
    if (goes_on_.offset == offset && goes_on_.length == length) near = goes_on_.cluster;
  }
  const Run run = co_await allocate_some(most, &virgin, near);
  const uint64_t host = run.first * cluster();
  const uint64_t count = run.count;
  const Entry last = load_entry(held.ref, first + count - 1);
  place.offset = offset;
  place.length = std::min(length, start + count * cluster() - offset);
  place.host = file_;
  place.host_offset = host + (offset - start);
  place.in_place = false;
  place.host_is_zero = virgin;
  // Subclusters that were there in another form move with the cluster; those around them do not.
  const uint64_t end = offset + place.length;
  place.copy_begin = std::min(align_down(offset, unit), start + moved_units(old).first * unit);
  place.copy_end = std::max(align_up(end, unit),
                            align_down(end - 1, cluster()) + moved_units(last).second * unit);
  place.token[0] = host;
  place.token[1] = count;
  if (place.length < length) {
    const std::lock_guard lock(goes_on_mutex_);
    goes_on_ = {end, length - place.length, run.first + count};
  }
  co_return place;
}

Task<void> Qcow2Node::publish(Grant place) {
  const uint64_t unit = cluster() / subclusters();
  const uint64_t start = align_down(place.offset, cluster());
  const Slice held = co_await writable_slice(place.offset);
  const size_t first = slice_index(place.offset);
  const uint64_t count = place.token[1] != 0
                             ? place.token[1]
                             : div_ceil(place.offset + place.length - start, cluster());
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2Update);
  // The flush that comes with the refcounts covers new data; without it there is one of its own.
  if (place.token[1] == 0 || lazy_) l2_->write_after_file_flush();
  for (uint64_t i = 0; i < count; ++i) {
    const Entry old = load_entry(held.ref, first + i);
    Entry entry;
    if (place.token[1] != 0) {
      entry.word = (place.token[0] + i * cluster()) | kCopied;
      if (!(old.word & kCompressed)) entry.bitmap = old.bitmap;
    } else {
      entry = old;
      if (!header_.extended_l2()) entry.word &= ~kZeroFlag;
    }
    if (header_.extended_l2()) {
      const uint64_t at = start + i * cluster();
      const uint64_t begin = std::max(place.copy_begin, at);
      const uint64_t end = std::min(place.copy_end, at + cluster());
      if (begin < end) {
        const uint64_t shown = bits((begin - at) / unit, div_ceil(end - at, unit));
        entry.bitmap = (entry.bitmap | shown) & ~(shown << 32);
      }
    } else {
      entry.bitmap = 0;
    }
    store_entry(held.ref, first + i, entry);
    if (place.token[1] != 0) release_entry(old, Freed::kReplaced);
  }
  l2_->mark_dirty(held.ref);
}

Task<void> Qcow2Node::abandon(Grant place) {
  if (place.token[1] != 0 && !external_) co_await give_back(place.token[0], place.token[1]);
}

// Clusters that were allocated and are not used: the work failed, and has an error to report.
Task<void> Qcow2Node::give_back(uint64_t offset, uint64_t count) {
  try {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    co_await change_refcount(offset / cluster(), count, -1);
  } catch (const Error&) {
    // A leak is all that is left of it.
  }
}

void Qcow2Node::release_entry(Entry entry, Freed why) {
  if (external_) return;
  if (entry.word & kCompressed) {
    const CompressedPlace place = CompressedPlace::decode(entry.word, header_.cluster_bits);
    const uint64_t first = align_down(place.offset, cluster());
    free_later(first, align_up(place.offset + place.length, cluster()) - first, why);
  } else if (const uint64_t host = entry.word & kOffsetMask) {
    free_later(host, cluster(), why);
  }
}

Task<Qcow2Node::Slice> Qcow2Node::writable_slice(uint64_t offset) {
  const uint64_t index = offset / header_.l2_range();
  if (index >= l1_count_) throw Error::system(EFBIG);
  if (!(l1_entry(index) & kCopied)) co_await make_l2_table(index);
  const uint64_t table = l1_entry(index) & kOffsetMask;
  Slice held;
  if (is_aligned(table, cluster())) {
    held.ref = try_slice(table, offset);
    held.first = align_down(offset, slice_bytes_ / header_.l2_entry_bytes() * cluster());
  }
  if (!held.ref) held = co_await slice(table, offset);
  check_overlap(table, cluster(), kOverlapAll & ~kOverlapActiveL2);
  co_return held;
}

// A table of its own for the L1 entry: empty, or a copy of the one that is shared.
Task<void> Qcow2Node::make_l2_table(uint64_t l1_index) {
  Mutex::Guard guard = co_await l2_tables_mutex_.lock();
  const uint64_t before = l1_entry(l1_index);
  if (before & kCopied) co_return;
  const uint64_t old = before & kOffsetMask;
  if (!is_aligned(old, cluster())) corrupt("L2 table offset unaligned");
  const uint64_t table =
      co_await allocate(1, nullptr, "Preventing invalid allocation of L2 table at offset 0");
  std::vector<std::byte> content(cluster());
  if (old != 0) {
    if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2AllocCowRead);
    for (uint64_t at = 0; at < cluster(); at += slice_bytes_) {
      const TableCache::Ref ref = co_await l2_->get(old + at);
      std::copy(ref.bytes().begin(), ref.bytes().end(),
                content.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  l2_->forget(table, cluster());
  co_await on_failure(
      [&]() -> Task<void> {
        if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2AllocWrite);
        co_await file_->write(table, content);
        co_await refcounts_->write_back();
        co_await file_->flush();
      },
      [&] { return give_back(table, 1); });
  std::byte entry[8];
  store_be<uint64_t>(entry, 0, table | kCopied);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL1Update);
  check_overlap(header_.l1_offset + l1_index * 8, 8, kOverlapAll & ~kOverlapActiveL1);
  co_await file_->write(header_.l1_offset + l1_index * 8, entry);
  {
    std::lock_guard lock(tables_mutex_);
    table_clusters_.insert(table / cluster());
    table_clusters_.erase(old / cluster());
  }
  set_l1_entry(l1_index, table | kCopied);
  if (old != 0) free_later(old, cluster(), Freed::kTables);
}

}  // namespace cairn
