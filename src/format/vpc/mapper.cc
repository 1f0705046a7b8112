#include <algorithm>
#include <atomic>

#include "base/arith.h"
#include "base/buffer.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

namespace {
constexpr uint64_t kBitmapBlockBytes = 512;

// A byte of a bitmap changes as a whole while others read it.
std::atomic_ref<uint8_t> octet(const TableCache::Ref& ref, uint64_t index) {
  return std::atomic_ref<uint8_t>(
      reinterpret_cast<uint8_t*>(ref.bytes().data())[index % kBitmapBlockBytes]);
}
}  // namespace

Task<bool> VpcNode::sectors_here(uint32_t entry, uint64_t offset, uint64_t length, uint64_t* run) {
  const uint64_t in_block = offset % header_.block_bytes;
  const uint64_t end = std::min<uint64_t>(in_block + length, header_.block_bytes);
  bool here = false;
  uint64_t at = in_block;
  TableCache::Ref ref;
  while (at < end) {
    const uint64_t sector = at / kSector;
    const uint64_t byte = sector / 8;
    if (at == in_block || byte % kBitmapBlockBytes == 0) {
      const uint64_t place = uint64_t{entry} * kSector + align_down(byte, kBitmapBlockBytes);
      ref = co_await bitmaps_->get(place);
    }
    const uint8_t bits = octet(ref, byte).load(std::memory_order_acquire);
    const bool set = (bits >> (7 - sector % 8) & 1) != 0;
    if (at == in_block)
      here = set;
    else if (set != here)
      break;
    at = (sector + 1) * kSector;
  }
  *run = std::min(at, end) - in_block;
  co_return here;
}

Task<void> VpcNode::mark_sectors(uint32_t entry, uint64_t begin, uint64_t end) {
  for (uint64_t sector = begin / kSector; sector < div_ceil(end, kSector); ++sector) {
    const uint64_t byte = sector / 8;
    const uint64_t place = uint64_t{entry} * kSector + align_down(byte, kBitmapBlockBytes);
    const TableCache::Ref ref = co_await bitmaps_->get(place);
    octet(ref, byte).fetch_or(static_cast<uint8_t>(0x80 >> sector % 8), std::memory_order_release);
    bitmaps_->mark_dirty(ref);
  }
}

Task<Mapping> VpcNode::map(uint64_t offset, uint64_t length) {
  Mapping result;
  result.length = length;
  if (fixed()) {
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = offset;
    co_return result;
  }
  uint64_t block = offset / header_.block_bytes;
  result.length = std::min<uint64_t>(length, header_.block_bytes - offset % header_.block_bytes);
  const uint32_t place = co_await entry(block);
  if (place == kUnused) {
    while (result.length < length) {
      const uint32_t next = co_await entry(++block);
      if (next != kUnused) break;
      result.length = std::min<uint64_t>(length, result.length + header_.block_bytes);
    }
    result.kind = differencing() ? Mapping::Kind::kBelow : Mapping::Kind::kZero;
    co_return result;
  }
  result.kind = Mapping::Kind::kChild;
  if (differencing()) {
    uint64_t run = 0;
    const bool here = co_await sectors_here(place, offset, result.length, &run);
    result.length = run;
    if (!here) {
      result.kind = Mapping::Kind::kBelow;
      co_return result;
    }
  }
  result.host = file_;
  result.host_offset = data_of(place) + offset % header_.block_bytes;
  co_return result;
}

Task<Grant> VpcNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  if (!exclusive) co_return Grant{};
  const uint64_t bytes = header_.block_bytes;
  const uint64_t start = align_down(offset, bytes);
  length = std::min(there.length, start + bytes - offset);
  const uint32_t at = co_await entry(offset / bytes);
  if (at != kUnused) {
    // The block is there; some of its sectors still come from the parent.
    const uint64_t begin = align_down(offset, kSector);
    Grant place = grant_new(offset, length, begin,
                            std::min(align_up(offset + length, kSector), start + bytes), file_,
                            data_of(at) + begin - start);
    place.token[0] = at;
    co_return place;
  }
  const uint64_t bitmap_bytes = header_.bitmap_bytes();
  Mutex::Guard guard = co_await end_mutex_.lock();
  const uint64_t host = end_;
  if (host / kSector >= kUnused) throw Error::system(EFBIG);
  const std::vector<std::byte> ones(bitmap_bytes, std::byte{0xff});
  co_await file_->write(host, ones);
  bitmaps_->forget(host, bitmap_bytes);
  Grant place = grant_new(offset, length, start, start + bytes, file_, host + bitmap_bytes);
  // The footer that was here has gone under the bitmap; nothing else is after it.
  place.host_is_zero = virgin_ <= host + bitmap_bytes && file_->length() <= host + bitmap_bytes;
  end_ = host + bitmap_bytes + bytes;
  virgin_ = std::max(virgin_, end_);
  place.token[0] = host / kSector;
  place.token[1] = 1;
  // It makes the file as long as the block needs, and other programs look for it there.
  co_await write_footer(end_);
  co_return place;
}

Task<void> VpcNode::publish(Grant place) {
  const auto at = static_cast<uint32_t>(place.token[0]);
  if (place.token[1] == 0) {
    bitmaps_->write_after_file_flush();
    const uint64_t start = align_down(place.offset, header_.block_bytes);
    co_await mark_sectors(at, place.copy_begin - start, place.copy_end - start);
    co_return;
  }
  table_->write_after_file_flush();
  co_await table_->set_entry(place.offset / header_.block_bytes, at);
}

Task<void> VpcNode::write_footer(uint64_t offset) {
  std::vector<std::byte> sector(kFooterBytes);
  footer_.encode(sector);
  co_await file_->write(offset, sector);
}

Task<void> VpcNode::flush_mapped() {
  if (table_) {
    co_await bitmaps_->write_back();
    co_await table_->write_back();
  }
  co_await file_->flush();
}

Task<void> VpcNode::do_close() {
  if (!read_only()) co_await flush_mapped();
}

}  // namespace cairn
