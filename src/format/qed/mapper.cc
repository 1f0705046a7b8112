#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "block/block_table.h"
#include "block/debug.h"
#include "block/fixed_storage.h"
#include "format/qed/node.h"

namespace cairn {

using namespace qed;

namespace {

uint64_t entry_of(const TableCache::Ref& ref, size_t index) {
  return load_entry<uint64_t, std::endian::little>(ref, index);
}

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void invalid_entry(const std::string& table, uint64_t index, uint64_t entry) {
  throw Error::system(EINVAL).hint(fmt::format(
      "{}: entry {} is {}, which is not a cluster of the file; `check` lists what else is wrong.",
      table, index, hex(entry)));
}

}  // namespace

uint64_t QedNode::table_of(uint64_t offset) const {
  const uint64_t index = offset / header_.table_range();
  const uint64_t table = l1_[index].load(std::memory_order_acquire);
  if (table != kUnallocated && !header_.valid_table(table, file_->length()))
    invalid_entry("L1 table at " + hex(header_.l1_offset), index, table);
  return table;
}

Task<TableCache::Ref> QedNode::block_of(uint64_t table, uint64_t offset) {
  const uint64_t in_table = offset % header_.table_range() / cluster() * 8;
  const uint64_t at = table + align_down(in_table, l2_->block_bytes());
  TableCache::Ref ref = l2_->try_get(at);
  if (ref) co_return ref;
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2Load);
  ref = co_await l2_->get(at);
  co_return ref;
}

// FILE_BYTES: up to where clusters may be.
Task<Mapping> QedNode::locate(uint64_t offset, uint64_t length, uint64_t file_bytes) {
  const uint64_t range = header_.table_range();
  const uint64_t table = table_of(offset);
  Mapping result;
  if (table == kUnallocated) {
    uint64_t index = offset / range + 1;
    while (index * range < offset + length && l1_[index].load() == kUnallocated) ++index;
    result.length = std::min(length, index * range - offset);
    co_return result;
  }
  const TableCache::Ref ref = co_await block_of(table, offset);
  const size_t in_block = l2_->block_bytes() / 8;
  size_t at = offset / cluster() % in_block;
  const uint64_t first = entry_of(ref, at);
  uint64_t step = 0;
  if (first == kZeroCluster) {
    result.kind = Mapping::Kind::kZero;
  } else if (first != kUnallocated) {
    if (!header_.valid_cluster(first, file_bytes))
      invalid_entry("L2 table at " + hex(table), offset % range / cluster(), first);
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = first + offset % cluster();
    step = cluster();
  }
  uint64_t end = align_down(offset, cluster()) + cluster();
  for (uint64_t expected = first + step;
       end < offset + length && ++at < in_block && entry_of(ref, at) == expected;
       expected += step, end += cluster())
    if (step != 0 && !header_.valid_cluster(expected, file_bytes)) break;
  result.length = std::min(length, end - offset);
  co_return result;
}

// BYTES, whole clusters, at the end of the file, which is as long then unless the caller FILLS all
// of them. What was taken before is before the new end: no change of the length cuts it off.
Task<uint64_t> QedNode::take(uint64_t bytes, bool fills, bool* virgin) {
  Mutex::Guard guard = co_await taking_.lock();
  const uint64_t place = end_;
  if (bytes > static_cast<uint64_t>(INT64_MAX) - place)
    throw Error::system(EFBIG, file_->filename());
  if (!fills) co_await make_room(*file_, place + bytes);
  end_ = place + bytes;
  *virgin = place >= virgin_;
  co_return place;
}

// A damaged image may give the guest a cluster that holds tables: written, it would take the rest
// of the image with it.
void QedNode::check_not_a_table(uint64_t host, uint64_t length) {
  const uint64_t begin = align_down(host, cluster());
  const uint64_t end = host + length;
  const uint64_t table_bytes = header_.table_bytes();
  bool hit = begin < header_.l1_offset + table_bytes && header_.l1_offset < end;
  if (!hit) {
    std::lock_guard lock(space_mutex_);
    const auto after = std::lower_bound(tables_.begin(), tables_.end(), end);
    hit = after != tables_.begin() && *(after - 1) + table_bytes > begin;
  }
  if (hit)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint("The cluster at " + hex(begin) + " belongs to the disk and to a table of the image.");
}

Task<Grant> QedNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  Grant place;
  place.offset = offset;
  place.length = there.length;
  place.host = file_;
  if (there.kind == Mapping::Kind::kChild) {
    check_not_a_table(there.host_offset, there.length);
    place.host_offset = there.host_offset;
    place.copy_begin = offset;
    place.copy_end = offset + place.length;
    co_return place;
  }
  if (!exclusive) co_return Grant{};
  co_await mark_need_check();
  const uint64_t range = header_.table_range();
  place.length = std::min(there.length, range - offset % range);
  place.copy_begin = align_down(offset, cluster());
  place.copy_end = align_up(offset + place.length, cluster());
  const uint64_t bytes = place.copy_end - place.copy_begin;
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAlloc);
  const uint64_t host = co_await take(bytes, bytes == place.length, &place.host_is_zero);
  place.host_offset = host + (offset - place.copy_begin);
  place.in_place = false;
  place.token[0] = host;
  place.token[1] = bytes;
  co_return place;
}

Task<void> QedNode::publish(Grant place) {
  l2_->write_after_file_flush();
  co_await set_entries(place.offset, place.token[1] / cluster(), place.token[0], cluster());
}

// COUNT entries from that of OFFSET on, all of one table: FIRST, FIRST + STEP, ….
Task<void> QedNode::set_entries(uint64_t offset, uint64_t count, uint64_t first, uint64_t step) {
  uint64_t table = table_of(offset);
  if (table == kUnallocated) table = co_await make_table(offset / header_.table_range());
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2Update);
  const size_t in_block = l2_->block_bytes() / 8;
  for (uint64_t done = 0; done < count;) {
    const uint64_t at = offset + done * cluster();
    const TableCache::Ref ref = co_await block_of(table, at);
    for (size_t i = at / cluster() % in_block; i < in_block && done < count; ++i, ++done)
      store_entry<uint64_t, std::endian::little>(ref, i, first + done * step);
    l2_->mark_dirty(ref);
  }
}

Task<uint64_t> QedNode::make_table(uint64_t index) {
  Mutex::Guard guard = co_await tables_mutex_.lock();
  const uint64_t before = l1_[index].load(std::memory_order_acquire);
  if (before != kUnallocated) co_return before;
  bool virgin = false;
  const uint64_t place = co_await take(header_.table_bytes(), false, &virgin);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2AllocWrite);
  if (!virgin) co_await file_->write_zeroes(place, header_.table_bytes());
  co_await file_->flush();
  std::vector<std::byte> entry(8);
  store_le<uint64_t>(entry, 0, place);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL1Update);
  co_await file_->write(header_.l1_offset + index * 8, entry);
  {
    std::lock_guard lock(space_mutex_);
    tables_.push_back(place);
  }
  l1_[index].store(place, std::memory_order_release);
  co_return place;
}

// Clusters keep their place: what is in use is zeroed there, as a hole where the file can have
// them.
Task<uint64_t> QedNode::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kZero) co_return there.length;
  if (there.kind == Mapping::Kind::kChild) {
    check_not_a_table(there.host_offset, there.length);
    co_await file_->write_zeroes(there.host_offset, there.length, {.may_unmap = may_unmap});
    co_return there.length;
  }
  const uint64_t range = header_.table_range();
  const uint64_t done = std::min(there.length, range - offset % range);
  co_await mark_need_check();
  co_await set_entries(offset, div_ceil(done, cluster()), kZeroCluster, 0);
  co_return done;
}

Task<void> QedNode::flush_mapped() {
  if (l2_) co_await l2_->write_back();
  co_await file_->flush();
}

}  // namespace cairn
