#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/debug.h"
#include "block/work_report.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

Task<void> Qcow2Node::do_resize(ResizeRequest request) {
  const uint64_t old = length();
  if (!is_aligned(request.length, 512))
    throw Error(ErrorKind::kInvalid, "The new size must be a multiple of 512");
  if (header_.version < 3 && header_.snapshot_count != 0)
    throw Error(ErrorKind::kUnsupported, "Can't resize a v2 image which has snapshots");
  if (request.length > header_.max_size())
    throw Error(ErrorKind::kTooLarge, "Failed to grow the L1 table: File too large");
  if (request.length < old) {
    if (request.preallocation != Preallocation::kOff)
      throw Error(ErrorKind::kInvalid, "Preallocation can't be used for shrinking images");
    co_await shrink(request.length);
    co_return;
  }
  {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    const uint64_t entries = header_.l1_entries_for(request.length);
    if (entries > l1_count_) co_await grow_l1(entries);
    co_await resize_external(request.length, request.preallocation);
    set_length(request.length);
    if (raw_data_file() || request.preallocation != Preallocation::kOff)
      co_await preallocate(old, request.length, request.preallocation);
  }
  // What a longer backing file or the rest of the last cluster holds must not show up.
  // Whole clusters of stored zeroes hide it already.
  const bool stored = (request.preallocation == Preallocation::kFalloc ||
                       request.preallocation == Preallocation::kFull) &&
                      !external_ && !header_.extended_l2() && !encrypted();
  uint64_t stale = 0;
  if (Node* below = backing(); below != nullptr && below->length() > old && !stored) {
    stale = request.length;
  } else if (old % cluster() != 0 && old < request.length) {
    const Mapping mapping = co_await map(old, 1);
    if (mapping.kind == Mapping::Kind::kChild || mapping.kind == Mapping::Kind::kEncoded)
      stale = std::min(align_up(old, cluster()), request.length);
  }
  if (stale > old) co_await write_zeroes(old, stale - old);
  co_await flush_mapped();
  std::byte field[8];
  store_be<uint64_t>(field, 0, request.length);
  co_await write_header_field(24, field);
  header_.size = request.length;
}

Task<void> Qcow2Node::grow_l1(uint64_t entries) {
  if (entries * 8 > kMaxL1Bytes) throw Error::system(EFBIG, "Failed to grow the L1 table");
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL1GrowAllocTable);
  const uint64_t place = co_await allocate(div_ceil(entries * 8, cluster()));
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL1GrowWriteTable);
  co_await refcounts_->write_back();
  co_await file_->flush();
  std::vector<std::byte> bytes(entries * 8);
  for (uint64_t i = 0; i < l1_count_; ++i) store_be<uint64_t>(bytes, i * 8, l1_entry(i));
  co_await file_->write(place, bytes);
  co_await file_->flush();
  std::byte field[12];
  store_be<uint32_t>(field, 0, static_cast<uint32_t>(entries));
  store_be<uint64_t>(field, 4, place);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL1GrowActivateTable);
  co_await write_header_field(36, field);
  const uint64_t old_offset = header_.l1_offset;
  const uint64_t old_clusters = div_ceil(l1_count_ * 8, cluster());
  auto table = std::make_unique<std::atomic<uint64_t>[]>(entries);
  for (uint64_t i = 0; i < l1_count_; ++i) table[i] = l1_entry(i);
  l1_ = std::move(table);
  l1_count_ = entries;
  header_.l1_entries = static_cast<uint32_t>(entries);
  header_.l1_offset = place;
  if (old_clusters == 0) co_return;
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  co_await free_now(old_offset / cluster(), old_clusters, Freed::kTables);
}

namespace {

// Makes part of FILE zeroes. To write those that are there already would take space for them.
Task<void> clear_data(Node& file, uint64_t offset, uint64_t bytes) {
  const uint64_t end = std::min(offset + bytes, std::max(file.length(), offset));
  while (offset < end) {
    const Extent found = co_await file.extent_at(offset, end - offset);
    if (!found.zero) co_await file.write_zeroes(offset, found.length);
    offset += found.length;
  }
}

}  // namespace

Task<void> Qcow2Node::preallocate(uint64_t from, uint64_t to, Preallocation mode) {
  const bool blocks = mode == Preallocation::kFalloc || mode == Preallocation::kFull;
  if (blocks && !external_ && from < to) {
    co_await preallocate_run(from, to, mode);
    co_return;
  }
  for (uint64_t at = from; at < to;) {
    Grant place = co_await grant(at, to - at, true);
    const uint64_t next = at + place.length;
    if (external_ && !place.in_place) {
      if (at % cluster() != 0) {
        // What the old last cluster showed stays what it shows.
        std::vector<std::byte> head(at % cluster());
        co_await read_guest(at - head.size(), head);
        co_await write_payload(*data_, at - head.size(), at - head.size(), head);
      }
      if (header_.extended_l2()) place.copy_begin = place.copy_end = place.offset;
      co_await publish(place);
    } else if (!place.in_place && place.token[1] != 0) {
      const uint64_t bytes = place.token[1] * cluster();
      const uint64_t end = place.token[0] + bytes;
      if (at % cluster() != 0) {
        // The old last cluster was not mapped; what it showed stays what it shows.
        std::vector<std::byte> head(at % cluster());
        co_await read_guest(at - head.size(), head);
        co_await write_payload(*file_, place.token[0], at - head.size(), head);
      } else if (!place.host_is_zero) {
        co_await clear_data(*file_, place.token[0], bytes);
      }
      if (file_->length() < end)
        co_await file_->resize(
            {.length = end,
             .preallocation = mode == Preallocation::kMetadata ? Preallocation::kOff : mode,
             .exact = false});
      // Subclusters stay unallocated: only the space is there.
      if (header_.extended_l2()) place.copy_begin = place.copy_end = place.offset;
      co_await publish(place);
    }
    at = next;
    report_work(context(), "allocate", at - from, to - from);
  }
}

// What is cut off must not come back when another program makes the disk larger: QEMU shows what is
// left in the last cluster.
Task<void> Qcow2Node::zero_cut_part(uint64_t new_length) {
  const uint64_t end = std::min(align_up(new_length, cluster()), length());
  for (uint64_t at = new_length; at < end;) {
    const Extent extent = co_await layer_extent_at(at, end - at);
    if (extent.allocated && (!extent.zero || extent.data)) co_await write_zeroes(at, extent.length);
    at += extent.length;
  }
}

Task<void> Qcow2Node::shrink(uint64_t new_length) {
  co_await zero_cut_part(new_length);
  {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    const uint64_t kept_entries = header_.l1_entries_for(new_length);
    const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
    for (uint64_t at = align_up(new_length, cluster()); at < length();) {
      const uint64_t index = at / header_.l2_range();
      if ((l1_entry(index) & kOffsetMask) == 0) {
        at = (index + 1) * header_.l2_range();
        continue;
      }
      const Slice held = co_await writable_slice(at);
      for (size_t i = slice_index(at); i < entries && at < length(); ++i, at += cluster()) {
        const Entry old = load_entry(held.ref, i);
        check_entry(old, at);
        store_entry(held.ref, i, {});
        release_entry(old, Freed::kForGood);
      }
      l2_->mark_dirty(held.ref);
    }
    co_await flush_mapped();
    std::vector<uint64_t> tables;
    for (uint64_t i = kept_entries; i < l1_count_; ++i) {
      const uint64_t table = l1_entry(i) & kOffsetMask;
      if (table == 0) continue;
      std::byte entry[8] = {};
      co_await file_->write(header_.l1_offset + i * 8, entry);
      set_l1_entry(i, 0);
      tables.push_back(table);
    }
    co_await file_->flush();
    for (const uint64_t table : tables) {
      l2_->forget(table, cluster());
      std::lock_guard lock(tables_mutex_);
      table_clusters_.erase(table / cluster());
    }
    for (const uint64_t table : tables) free_later(table, cluster(), Freed::kForGood);
    co_await flush_mapped();
    std::byte field[8];
    store_be<uint64_t>(field, 0, new_length);
    co_await write_header_field(24, field);
    header_.size = new_length;
    set_length(new_length);
  }
  co_await resize_external(new_length, Preallocation::kOff);
  co_await drop_unused_blocks();
  co_await cut_tail(new_length);
}

// Whether the refcount block with INDEX counts nothing but itself.
Task<bool> Qcow2Node::is_unused_block(uint64_t index) {
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t place = refcount_block(index);
  if (place == 0) co_return false;
  const uint64_t own = place / cluster();
  const uint64_t count = co_await refcount(own);
  if (count != 1) co_return false;
  const TableCache::Ref ref = co_await refcounts_->get(place);
  for (uint64_t i = 0; i < per_block; ++i)
    if (get_refcount(ref.bytes(), i, header_.refcount_order) != 0 && index * per_block + i != own)
      co_return false;
  co_return true;
}

// Frees refcount blocks that have nothing left to count. One that was counted by another may leave
// that one without use.
Task<void> Qcow2Node::drop_unused_blocks() {
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  const uint64_t per_block = header_.refcounts_per_block();
  while (true) {
    std::vector<uint64_t> unused;
    for (uint64_t index = 0; index < refcount_table_.size(); ++index) {
      const bool drop = co_await is_unused_block(index);
      if (drop) unused.push_back(index);
    }
    if (unused.empty()) co_return;
    // Counters that go with a block must not come back from the cache.
    co_await refcounts_->write_back();
    co_await file_->flush();
    const std::vector<std::byte> none(8);
    for (const uint64_t index : unused) {
      const uint64_t in_table = header_.refcount_table_offset + index * 8;
      check_overlap(in_table, 8, kOverlapAll & ~kOverlapRefcountTable);
      co_await file_->write(in_table, none);
    }
    co_await file_->flush();
    for (const uint64_t index : unused) {
      const uint64_t place = std::exchange(refcount_table_[index], 0);
      refcounts_->forget(place, cluster());
      {
        std::lock_guard lock(tables_mutex_);
        block_clusters_.erase(place / cluster());
      }
      free_cursor_ = std::min(free_cursor_, index * per_block);
      if (place / cluster() / per_block == index)
        co_await file_->discard(place, cluster());
      else
        co_await free_now(place / cluster(), 1, Freed::kForGood);
    }
  }
}

// Gives the end of the file back where nothing is any more.
Task<void> Qcow2Node::cut_tail(uint64_t) {
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  uint64_t last = div_ceil(file_->length(), cluster());
  while (last > 0) {
    const uint64_t used = co_await refcount(last - 1);
    if (used != 0) break;
    --last;
  }
  if (last * cluster() >= file_->length()) co_return;
  try {
    co_await file_->resize({.length = last * cluster()});
    virgin_ = std::min(virgin_, last * cluster());
  } catch (const Error& error) {
    context().warn("Failed to truncate the tail of the image: " + error.cause());
  }
}

}  // namespace cairn
