#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/debug.h"
#include "block/fixed_storage.h"
#include "format/qcow/node.h"

namespace cairn {

using namespace qcow;

// --- tables ---

uint64_t QcowNode::l1_entry(uint64_t index) const {
  return index < l1_.size() ? l1_[index].load(std::memory_order_acquire) : 0;
}

void QcowNode::set_l1_entry(uint64_t index, uint64_t table) {
  l1_[index].store(table, std::memory_order_release);
  std::lock_guard lock(dirty_mutex_);
  dirty_l1_.insert(index);
}

void QcowNode::check_table(uint64_t table, uint64_t index) const {
  if (table % kSector == 0 && table <= INT64_MAX - header_.l2_bytes() &&
      !header_.overlaps(table, header_.l2_bytes()))
    return;
  throw Error(
      ErrorKind::kIo,
      fmt::format("entry {} of the L1 table points to {}, where no table can be", index, table));
}

void QcowNode::check_cluster(uint64_t place, uint64_t offset) const {
  if (place % kSector == 0 && place <= INT64_MAX - cluster()) return;
  throw Error(
      ErrorKind::kIo,
      fmt::format("the cluster of byte {} of the disk is said to be at {}, where none can be",
                  offset, place));
}

Task<QcowNode::Slice> QcowNode::slice(uint64_t table, uint64_t offset) {
  const uint64_t index = offset % header_.l2_range() / cluster();
  const uint64_t first = align_down(index, l2_->block_bytes() / 8);
  Slice result;
  result.first = align_down(offset, header_.l2_range()) + first * cluster();
  result.ref = l2_->try_get(table + first * 8);
  if (!result.ref) result.ref = co_await l2_->get(table + first * 8);
  co_return result;
}

// The room of a new table reads as zeroes: nothing has been written there.
Task<QcowNode::Slice> QcowNode::writable_slice(uint64_t offset) {
  const uint64_t index = offset / header_.l2_range();
  uint64_t table = l1_entry(index);
  if (table == 0) {
    Mutex::Guard guard = co_await tables_.lock();
    table = l1_entry(index);
    if (table == 0) {
      if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2AllocWrite);
      table = co_await take(header_.l2_bytes(), cluster());
      if (!file_->reads_zero_when_created())
        co_await file_->write_zeroes(table, header_.l2_bytes());
      set_l1_entry(index, table);
    }
  }
  check_table(table, index);
  Slice result = co_await slice(table, offset);
  co_return result;
}

// --- mapping ---

Task<Mapping> QcowNode::map(uint64_t offset, uint64_t length) {
  Mapping result;
  const uint64_t index = offset / header_.l2_range();
  const uint64_t table = l1_entry(index);
  if (table == 0) {
    // Tables that are missing side by side count as one hole.
    uint64_t end = (index + 1) * header_.l2_range();
    while (end - offset < length && l1_entry(end / header_.l2_range()) == 0)
      end += header_.l2_range();
    result.length = std::min(length, end - offset);
    co_return result;
  }
  check_table(table, index);
  const Slice held = co_await slice(table, offset);
  const uint64_t entries = l2_->block_bytes() / 8;
  const auto at = [&](uint64_t i) { return held.ref.load_entry(i); };
  const uint64_t begin = (offset - held.first) / cluster();
  const uint64_t first = at(begin);
  const uint64_t last = std::min(entries, div_ceil(offset + length - held.first, cluster()));
  uint64_t end = begin + 1;
  if (first == 0) {
    while (end < last && at(end) == 0) ++end;
  } else if ((first & CompressedPlace::kFlag) != 0) {
    result.kind = Mapping::Kind::kEncoded;
    result.compressed = true;
    result.token = first;
  } else {
    check_cluster(first, offset);
    while (end < last && at(end) == first + (end - begin) * cluster()) ++end;
    check_cluster(first + (end - 1 - begin) * cluster(), offset);
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = first + offset % cluster();
  }
  result.length = std::min(length, held.first + end * cluster() - offset);
  co_return result;
}

// --- room ---

Task<uint64_t> QcowNode::take(uint64_t bytes, uint64_t unit) {
  Mutex::Guard guard = co_await taking_.lock();
  const uint64_t place = align_up(end_, unit);
  if (place > INT64_MAX - bytes) throw Error::system(E2BIG);
  co_await make_room(*file_, place + bytes);
  // The next one begins at a sector, as the length of a file is counted in them.
  end_ = align_up(place + bytes, kSector);
  co_return place;
}

Task<Grant> QcowNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  Grant place;
  place.offset = offset;
  place.length = there.length;
  place.host = file_;
  if (there.kind == Mapping::Kind::kChild) {
    if (header_.overlaps(there.host_offset, there.length))
      throw Error(
          ErrorKind::kIo,
          fmt::format("the cluster of byte {} of the disk overlaps the header or the L1 table",
                      offset));
    place.host_offset = there.host_offset;
    place.copy_begin = offset;
    place.copy_end = offset + place.length;
    co_return place;
  }
  if (!exclusive) co_return Grant{};
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAlloc);
  // The table first, and no more clusters at a time than the entries in hand are for.
  const Slice held = co_await writable_slice(offset);
  const uint64_t slice_end = held.first + l2_->block_bytes() / 8 * cluster();
  place.length = std::min(place.length, slice_end - offset);
  place.copy_begin = align_down(offset, cluster());
  place.copy_end = align_up(offset + place.length, cluster());
  const uint64_t host = co_await take(place.copy_end - place.copy_begin, cluster());
  place.host_offset = host + (offset - place.copy_begin);
  place.in_place = false;
  place.host_is_zero = file_->reads_zero_when_created();
  place.token[0] = host;
  co_return place;
}

Task<void> QcowNode::publish(Grant place) {
  const Slice held = co_await writable_slice(place.offset);
  l2_->write_after_file_flush();
  uint64_t host = place.token[0];
  for (uint64_t at = place.copy_begin; at < place.copy_end; at += cluster(), host += cluster())
    held.ref.store_entry((at - held.first) / cluster(), host);
  l2_->mark_dirty(held.ref);
}

// There is no mark for zeroes; what has nothing below it needs none.
Task<uint64_t> QcowNode::zero_mapped(uint64_t offset, uint64_t length, bool) {
  if (backing() != nullptr) co_return 0;
  const Mapping there = co_await map(offset, length);
  co_return there.kind == Mapping::Kind::kBelow ? there.length : 0;
}

Task<void> QcowNode::flush_mapped() {
  if (!l2_) co_return;
  Mutex::Guard guard = co_await flushing_.lock();
  std::set<uint64_t> changed;
  {
    std::lock_guard lock(dirty_mutex_);
    changed.swap(dirty_l1_);
  }
  std::exception_ptr error;
  try {
    co_await l2_->write_back();
    co_await file_->flush();
    if (changed.empty()) co_return;
    for (const uint64_t index : changed) {
      std::byte entry[8];
      store_be<uint64_t>(entry, 0, l1_entry(index));
      co_await file_->write(header_.l1_offset + index * 8, entry);
    }
    co_await file_->flush();
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  {
    std::lock_guard lock(dirty_mutex_);
    dirty_l1_.merge(changed);
  }
  std::rethrow_exception(error);
}

Task<void> QcowNode::do_close() {
  if (!read_only()) co_await flush_mapped();
  co_await Node::do_close();
}

// Everything is decided below again; what the tables pointed to leaves the file.
Task<bool> QcowNode::make_empty() {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  co_await file_->write_zeroes(header_.l1_offset, header_.l1_entries() * 8);
  co_await file_->flush();
  make_cache();
  for (std::atomic<uint64_t>& entry : l1_) entry.store(0, std::memory_order_release);
  try {
    co_await file_->resize({.length = header_.l1_end()});
    end_ = align_up(header_.l1_end(), kSector);
  } catch (const Error& error) {
    context().warn("Failed to truncate the tail of the image: " + error.cause());
  }
  co_return true;
}

}  // namespace cairn
