#include <algorithm>

#include "base/arith.h"
#include "block/block_table.h"
#include "block/fixed_storage.h"
#include "format/parallels/node.h"

namespace cairn {

using namespace parallels;

namespace {
uint64_t place_of(uint64_t index) { return kHeaderBytes + index * 4; }

uint32_t value_at(const TableCache::Ref& ref, uint64_t place) {
  return load_entry<uint32_t, std::endian::little>(ref, (place - ref.offset()) / 4);
}
}  // namespace

// --- table and header ---

Task<uint32_t> ParallelsNode::entry(uint64_t index) {
  const uint64_t place = place_of(index);
  const uint64_t block = align_down(place, table_->block_bytes());
  TableCache::Ref ref = table_->try_get(block);
  if (!ref) ref = co_await table_->get(block);
  co_return value_at(ref, place);
}

// The first of COUNT entries becomes VALUE, every other one STEP more than the one before.
Task<void> ParallelsNode::set_entries(uint64_t first, uint64_t count, uint32_t value,
                                      uint32_t step) {
  TableCache::Ref ref;
  for (uint64_t i = 0; i < count; ++i, value += step) {
    const uint64_t place = place_of(first + i);
    const uint64_t block = align_down(place, table_->block_bytes());
    if (!ref || ref.offset() != block) {
      if (ref) table_->mark_dirty(ref);
      ref = co_await table_->get(block);
    }
    store_entry<uint32_t, std::endian::little>(ref, (place - block) / 4, value);
  }
  if (ref) table_->mark_dirty(ref);
}

// Through the cache, as the header shares its sector with the first entries.
Task<void> ParallelsNode::write_header() {
  const TableCache::Ref ref = co_await table_->get(0);
  header_.encode(ref.bytes());
  table_->mark_dirty(ref);
  co_await table_->write_back();
  co_await file_->flush();
}

Task<void> ParallelsNode::begin_change() {
  Mutex::Guard guard = co_await change_mutex_.lock();
  if (changed_.load(std::memory_order_acquire)) co_return;
  header_.in_use = kInUse;
  header_.ext_off = 0;
  header_.flags &= ~kFlagEmpty;
  co_await write_header();
  changed_.store(true, std::memory_order_release);
}

Task<void> ParallelsNode::do_close() {
  if (!read_only() && table_) {
    if (changed_.load(std::memory_order_acquire)) {
      co_await flush_mapped();
      if (!extension_.empty()) {
        // It was given up with the first change.
        extension_.clear();
        find_holes(co_await survey_clusters());
      }
      // What is free at the end leaves the file.
      if (!holes_.empty()) {
        const auto last = std::prev(holes_.end());
        if (last->first + last->second == end_) end_ = last->first;
      }
      if (file_->length() > end_) co_await trim(*file_, end_);
      co_await file_->flush();
      clear_mark_ = true;
    }
    if (clear_mark_) {
      header_.in_use = 0;
      co_await write_header();
    }
  }
  co_await Node::do_close();
}

// --- mapping ---

Task<Mapping> ParallelsNode::map(uint64_t offset, uint64_t length) {
  const uint64_t first = offset / cluster();
  const uint64_t last = (offset + length - 1) / cluster();
  const auto step = static_cast<uint32_t>(cluster() / header_.unit());
  uint32_t found = 0;
  uint32_t expected = 0;
  uint64_t index = first;
  TableCache::Ref ref;
  for (; index <= last; ++index, expected += step) {
    const uint64_t place = place_of(index);
    const uint64_t block = align_down(place, table_->block_bytes());
    if (!ref || ref.offset() != block) {
      TableCache::Ref next = table_->try_get(block);
      if (!next) next = co_await table_->get(block);
      ref = std::move(next);
    }
    const uint32_t value = value_at(ref, place);
    if (index == first) found = expected = value;
    if (found != 0 ? value != expected : value != 0) break;
  }
  Mapping result;
  result.length = std::min(length, index * cluster() - offset);
  if (found != 0) {
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = host_of(found) + offset % cluster();
  }
  co_return result;
}

// --- room ---

// Clusters must be inside of the file before an entry says so. In larger steps than asked for, as
// the file system then keeps the file in one piece: by as much again as there is, up to what the
// option says. Closing cuts the rest off.
Task<void> ParallelsNode::make_long_enough(uint64_t end) {
  const uint64_t now = file_->length();
  if (now >= end) co_return;
  const uint64_t most = std::min(end + std::min(prealloc_bytes_, end), std::max(end, kMaxSize));
  if (prealloc_falloc_) {
    try {
      co_await file_->write_zeroes(now, most - now, {.no_fallback = true});
      co_return;
    } catch (const Error&) {
      // Space for later may be more than there is.
    }
  } else {
    try {
      co_await file_->resize({.length = most, .exact = false});
      co_return;
    } catch (const Error&) {
    }
  }
  co_await make_room(*file_, end);
}

// Between one and WANTED clusters in a row: what is free below the end first, the lowest of it.
Task<ParallelsNode::Room> ParallelsNode::take(uint64_t wanted) {
  Mutex::Guard guard = co_await taking_.lock();
  Room room;
  {
    std::lock_guard lock(holes_mutex_);
    if (!holes_.empty()) {
      const auto first = holes_.begin();
      const Range hole{first->first, first->second};
      room.host = hole.begin;
      room.count = std::min(wanted, hole.length / cluster());
      const uint64_t taken = room.count * cluster();
      holes_.erase(first);
      if (taken != hole.length) holes_.emplace(hole.begin + taken, hole.length - taken);
      co_return room;
    }
  }
  room.host = end_;
  const uint64_t last = uint64_t{UINT32_MAX} * header_.unit();
  if (room.host > last)
    throw Error(ErrorKind::kNoSpace, "Parallels: the image cannot have more clusters");
  room.count = std::min(wanted, (last - room.host) / cluster() + 1);
  const uint64_t end = room.host + room.count * cluster();
  room.zero = room.host >= virgin_;
  co_await make_long_enough(end);
  end_ = end;
  virgin_ = std::max(virgin_, end);
  co_return room;
}

// Neighbours become one.
void ParallelsNode::add_hole(Range range) {
  std::lock_guard lock(holes_mutex_);
  auto next = holes_.upper_bound(range.begin);
  if (next != holes_.end() && next->first == range.begin + range.length) {
    range.length += next->second;
    next = holes_.erase(next);
  }
  if (next != holes_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == range.begin) {
      before->second += range.length;
      return;
    }
  }
  holes_.emplace(range.begin, range.length);
}

Task<Grant> ParallelsNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  if (there.kind != Mapping::Kind::kChild && !exclusive) co_return Grant{};
  // Writes in place count as well: no bitmap would know of them.
  if (!changed_.load(std::memory_order_acquire)) co_await begin_change();
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  const uint64_t start = align_down(offset, cluster());
  const Room room = co_await take(div_ceil(offset + there.length - start, cluster()));
  length = std::min(there.length, start + room.count * cluster() - offset);
  Grant place =
      grant_new(offset, length, start, align_up(offset + length, cluster()), file_, room.host);
  place.host_is_zero = room.zero;
  place.token[0] = room.host;
  place.token[1] = room.count;
  co_return place;
}

Task<void> ParallelsNode::publish(Grant place) {
  table_->write_after_file_flush();
  co_await set_entries(place.offset / cluster(), place.token[1],
                       static_cast<uint32_t>(place.token[0] / header_.unit()),
                       static_cast<uint32_t>(cluster() / header_.unit()));
}

Task<void> ParallelsNode::abandon(Grant place) {
  add_hole({place.token[0], place.token[1] * cluster()});
  co_return;
}

// --- zeroes ---

// Clusters from FIRST on that are in a row.
Task<void> ParallelsNode::give_up(uint64_t first, uint64_t count) {
  const Range range{host_of(co_await entry(first)), count * cluster()};
  co_await set_entries(first, count, 0, 0);
  std::lock_guard lock(holes_mutex_);
  given_up_.push_back(range);
}

// There is no mark for zeroes: a cluster without an entry has them, or what is below.
Task<uint64_t> ParallelsNode::zero_mapped(uint64_t offset, uint64_t length, bool) {
  if (backing() != nullptr) co_return 0;
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) {
    if (!changed_.load(std::memory_order_acquire)) co_await begin_change();
    co_await give_up(offset / cluster(), div_ceil(there.length, cluster()));
  }
  co_return there.length;
}

Task<void> ParallelsNode::discard_mapped(uint64_t offset, uint64_t length) {
  for (uint64_t end = offset + length; offset < end;) {
    const uint64_t done = co_await zero_mapped(offset, end - offset, true);
    if (done == 0) co_return;
    offset += done;
  }
}

Task<void> ParallelsNode::flush_mapped() {
  if (!table_) co_return;
  std::vector<Range> freed;
  {
    std::lock_guard lock(holes_mutex_);
    freed.swap(given_up_);
  }
  co_await table_->write_back();
  co_await file_->flush();
  for (const Range& range : freed) {
    co_await file_->discard(range.begin, range.length);
    add_hole(range);
  }
}

}  // namespace cairn
