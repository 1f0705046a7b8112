#include <algorithm>

#include "base/arith.h"
#include "block/fixed_storage.h"
#include "format/vhdx/node.h"

namespace cairn {

using namespace vhdx;

namespace {
constexpr uint32_t kNewLogBytes = 1 << 20;
constexpr size_t kMaxChanges = 100;
}  // namespace

// What is between USED is free.
void VhdxNode::note_used(std::vector<Room> used) {
  std::sort(used.begin(), used.end(),
            [](const Room& a, const Room& b) { return a.offset < b.offset; });
  free_.clear();
  end_ = align_up(file_->length(), kMiB);
  uint64_t at = kMiB;
  for (const Room& room : used) {
    if (room.offset > at) free_[at] = align_down(room.offset - at, kMiB);
    at = std::max(at, align_up(room.offset + room.bytes, kMiB));
  }
  if (at < end_) free_[at] = end_ - at;
  end_ = std::max(end_, at);
}

// Bytes in one piece that read as zeroes, in the file to their end.
Task<uint64_t> VhdxNode::take_room(uint64_t bytes) {
  Mutex::Guard guard = co_await room_mutex_.lock();
  uint64_t place = 0;
  {
    std::lock_guard lock(free_mutex_);
    const auto fits = std::find_if(free_.begin(), free_.end(),
                                   [&](const auto& item) { return item.second >= bytes; });
    if (fits != free_.end()) {
      place = fits->first;
      const uint64_t rest = fits->second - bytes;
      free_.erase(fits);
      if (rest != 0) free_[place + bytes] = rest;
    }
  }
  const bool reused = place != 0;
  if (!reused) place = end_;
  std::exception_ptr error;
  try {
    if (file_->length() < place + bytes) co_await make_room(*file_, place + bytes);
    if (reused || !file_->reads_zero_when_created())
      co_await file_->write_zeroes(place, bytes, {.may_unmap = true});
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    if (reused) give_room({place, bytes});
    std::rethrow_exception(error);
  }
  if (!reused) end_ = place + bytes;
  co_return place;
}

void VhdxNode::give_room(Room room) {
  std::lock_guard lock(free_mutex_);
  auto next = free_.lower_bound(room.offset);
  if (next != free_.end() && next->first == room.offset + room.bytes) {
    room.bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == room.offset) {
      before->second += room.bytes;
      return;
    }
  }
  free_[room.offset] = room.bytes;
}

// Before anything that the guest sees changes. An image without a log gets one.
Task<void> VhdxNode::begin_change() {
  if (!has_log_) {
    Mutex::Guard guard = co_await bitmap_mutex_.lock();
    if (!has_log_) {
      const uint64_t place = co_await take_room(kNewLogBytes);
      journal_->set_log_place(place, kNewLogBytes);
      has_log_ = true;
    }
  }
  co_await journal_->begin(true);
}

Task<void> VhdxNode::commit() {
  if (!has_log_ && pages_->changed()) co_await begin_change();
  std::vector<Room> free;
  co_await journal_->commit([&](const std::vector<Room>& released) {
    free.insert(free.end(), released.begin(), released.end());
  });
  for (const Room& room : free) {
    co_await file_->discard(room.offset, room.bytes);
    give_room(room);
  }
}

// Makes BLOCK one without data of its own.
Task<void> VhdxNode::release_block(uint64_t block, State state) {
  if (pages_->dirty() > kMaxChanges) co_await commit();
  const uint64_t index = geometry_.index_of(block);
  const PagePtr page = co_await table_page(index);
  const Entry before = co_await entry_at(index);
  if (before.value == Entry::make(state, 0).value) co_return;
  pages_->change([&] {
    set_entry(page, index, Entry::make(state, 0));
    if (before.has_data()) pages_->release({before.offset(), block_bytes()});
  });
}

// The bits of what was written are set; those of a block that is new are cleared before.
Task<void> VhdxNode::publish_partial(const Grant& place) {
  Mutex::Guard guard = co_await bitmap_mutex_.lock();
  const uint64_t block = place.offset / block_bytes();
  const uint64_t index = geometry_.index_of(block);
  const uint64_t bitmap_index = geometry_.bitmap_index(block / geometry_.chunk_blocks);
  const PagePtr page = co_await table_page(index);
  const PagePtr bitmap_page = co_await table_page(bitmap_index);
  uint64_t bitmap = co_await bitmap_of(block);
  const bool new_bitmap = bitmap == 0;
  if (new_bitmap) {
    bitmap = co_await take_room(kBitmapBlockBytes);
    pages_->forget(bitmap, kBitmapBlockBytes);
  }
  const bool new_block = place.token[2] == 0;
  const uint64_t sector_bytes = parameters_.logical_sector;
  const uint64_t per_block = block_bytes() / sector_bytes;
  const uint64_t first = block % geometry_.chunk_blocks * per_block;
  const uint64_t start = block * block_bytes();
  const uint64_t begin = first + (place.copy_begin - start) / sector_bytes;
  const uint64_t end = first + div_ceil(place.copy_end - start, sector_bytes);
  const uint64_t from = (new_block ? first : begin) / 8;
  const uint64_t to = div_ceil(new_block ? first + per_block : end, 8);
  std::vector<PagePtr> bits;
  for (uint64_t at = align_down(from, kSectorBytes); at < to; at += kSectorBytes) {
    PagePtr part = co_await pages_->get(bitmap + at, true);
    bits.push_back(std::move(part));
  }
  pages_->change([&] {
    for (const PagePtr& part : bits) {
      std::array<std::byte, kSectorBytes> bytes = part->bytes;
      const uint64_t base = part->offset - bitmap;
      for (uint64_t byte = std::max(from, base); byte < std::min(to, base + kSectorBytes); ++byte) {
        unsigned value = new_block ? 0 : std::to_integer<unsigned>(bytes[byte - base]);
        for (uint64_t bit = 0; bit < 8; ++bit)
          if (byte * 8 + bit >= begin && byte * 8 + bit < end) value |= 1u << bit;
        bytes[byte - base] = static_cast<std::byte>(value);
      }
      const uint64_t low = std::max(from, base) - base;
      const uint64_t high = std::min(to - base, kSectorBytes);
      pages_->set_bytes(part, low, ByteSpan(bytes).subspan(low, high - low));
    }
    if (new_block) set_entry(page, index, Entry::make(kPartial, place.token[0]));
    if (new_bitmap) set_entry(bitmap_page, bitmap_index, Entry::make(kPresent, bitmap));
  });
}

Task<void> VhdxNode::trim_file() {
  co_await commit();
  co_await journal_->empty_log();
  Mutex::Guard guard = co_await room_mutex_.lock();
  uint64_t place = 0;
  {
    std::lock_guard lock(free_mutex_);
    if (free_.empty()) co_return;
    const auto last = std::prev(free_.end());
    if (last->first + last->second != end_) co_return;
    place = last->first;
    free_.erase(last);
  }
  end_ = place;
  co_await file_->resize({.length = place});
}

}  // namespace cairn
