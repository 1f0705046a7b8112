#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/vhdx/node.h"

namespace cairn {

using namespace vhdx;

namespace {
constexpr uint64_t kBatchBlocks = 8192;
}  // namespace

Task<void> VhdxNode::do_resize(ResizeRequest request) {
  if (request.length > kMaxDisk)
    throw Error(ErrorKind::kTooLarge, "Image size too large; max of 64TB");
  if (!is_aligned(request.length, parameters_.logical_sector))
    throw Error(ErrorKind::kInvalid,
                "The new size must be a multiple of " + std::to_string(parameters_.logical_sector));
  if (request.preallocation != Preallocation::kOff && !parameters_.leave_allocated)
    throw Error(ErrorKind::kUnsupported, "VHDX: dynamic images have no preallocation");
  if (!damage_.empty()) throw Error(ErrorKind::kDenied, "VHDX: the image is damaged: " + damage_);
  const uint64_t before = length();
  if (request.length == before) co_return;
  {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    co_await begin_change();
    co_await commit();
    if (request.length > before)
      co_await grow(request.length);
    else
      co_await shrink(request.length);
    set_length(request.length);
  }
  // What a longer parent has there is not to be seen.
  Node* below = backing();
  const uint64_t block_end = std::min(align_up(before, block_bytes()), request.length);
  if (below != nullptr && below->length() > before && block_end > before)
    co_await write_zeroes(before, block_end - before);
}

// The pages that hold TABLE in both of its places; BYTES gets what is to be in each.
Task<std::vector<PagePtr>> VhdxNode::region_pages(const RegionTable& table,
                                                  std::vector<std::byte>& bytes) {
  bytes.resize(kTableBytes);
  table.encode(bytes);
  std::vector<PagePtr> pages;
  for (const uint64_t place : kRegionOffsets) {
    for (uint64_t at = 0; at < kTableBytes; at += kSectorBytes) {
      PagePtr page = co_await pages_->get(place + at);
      pages.push_back(std::move(page));
    }
  }
  co_return pages;
}

Task<void> VhdxNode::store_size(uint64_t size) {
  // The item may be across two pages.
  std::vector<std::byte> bytes(8);
  store_le<uint64_t>(bytes, 0, size);
  const uint64_t at = align_down(size_item_, kSectorBytes);
  const uint64_t in_first = std::min<uint64_t>(8, at + kSectorBytes - size_item_);
  const PagePtr first = co_await pages_->get(at);
  PagePtr second;
  if (in_first < 8) second = co_await pages_->get(at + kSectorBytes);
  pages_->change([&] {
    pages_->set_bytes(first, size_item_ - at, ByteSpan(bytes).first(in_first));
    if (second) pages_->set_bytes(second, 0, ByteSpan(bytes).subspan(in_first));
  });
}

// Entries of new blocks are written while nobody looks at them; the size makes them count.
Task<void> VhdxNode::grow(uint64_t size) {
  const uint64_t before = parameters_.size;
  Parameters larger = parameters_;
  larger.size = size;
  const Geometry after = Geometry::of(larger);
  // Past the old end anything may be in the last block.
  if (before % block_bytes() != 0) {
    const Entry last = co_await entry(before / block_bytes());
    if (last.has_data()) {
      const uint64_t in_block = before % block_bytes();
      if (file_->length() < last.offset() + block_bytes())
        co_await file_->resize({.length = last.offset() + block_bytes(), .exact = false});
      co_await file_->write_zeroes(last.offset() + in_block, block_bytes() - in_block);
    }
  }
  if (after.entries * 8 > table_.length) {
    co_await move_table(after, size);
  } else {
    const uint64_t old_blocks = geometry_.blocks;
    for (uint64_t index = geometry_.entries; index < after.entries; ++index) {
      const bool bitmap = index % (after.chunk_blocks + 1) == after.chunk_blocks;
      const PagePtr page = co_await table_page(index);
      if (bitmap) pages_->change([&] { set_entry(page, index, Entry{}); });
      if (index % kBatchBlocks == 0) co_await commit();
    }
    for (uint64_t block = old_blocks; block < after.blocks; ++block) {
      const uint64_t index = after.index_of(block);
      Entry value = Entry::make(kZeroBlock, 0);
      if (parameters_.leave_allocated) {
        const uint64_t place = co_await take_room(block_bytes());
        value = Entry::make(kPresent, place);
      }
      const PagePtr page = co_await table_page(index);
      pages_->change([&] { set_entry(page, index, value); });
      if (block % kBatchBlocks == 0) co_await commit();
    }
    co_await commit();
    co_await store_size(size);
    co_await commit();
  }
  parameters_.size = size;
  geometry_ = after;
}

// A larger table elsewhere: written while nothing names it; then one entry of the log changes both
// region tables and the size.
Task<void> VhdxNode::move_table(const Geometry& larger, uint64_t size) {
  const uint64_t bytes = align_up(larger.entries * 8, kMiB);
  if (bytes > UINT32_MAX)
    throw Error(ErrorKind::kTooLarge, "VHDX: the block allocation table would be too large");
  const uint64_t place = co_await take_room(bytes);
  std::vector<std::byte> part;
  uint64_t block = geometry_.blocks;
  for (uint64_t done = 0; done < larger.entries;) {
    const uint64_t count = std::min<uint64_t>(kMiB / 8, larger.entries - done);
    part.assign(count * 8, std::byte{0});
    if (done < geometry_.entries) {
      const uint64_t old = std::min(count, geometry_.entries - done);
      co_await file_->read(table_.offset + done * 8, MutableByteSpan(part).first(old * 8));
    }
    for (; block < larger.blocks && larger.index_of(block) < done + count; ++block) {
      uint64_t value = kZeroBlock;
      if (parameters_.leave_allocated) {
        const uint64_t room = co_await take_room(block_bytes());
        value = Entry::make(kPresent, room).value;
      }
      store_le<uint64_t>(part, (larger.index_of(block) - done) * 8, value);
    }
    co_await file_->write(place + done * 8, part);
    done += count;
  }
  RegionTable table = regions_;
  for (Region& region : table.regions) {
    if (region.id != kBatRegion) continue;
    region.offset = place;
    region.length = static_cast<uint32_t>(bytes);
  }
  std::vector<std::byte> encoded;
  const std::vector<PagePtr> pages = co_await region_pages(table, encoded);
  co_await store_size(size);
  const Region old = table_;
  pages_->change([&] {
    size_t at = 0;
    for (const PagePtr& page : pages) {
      pages_->set_bytes(page, 0, ByteSpan(encoded).subspan(at, kSectorBytes));
      at = (at + kSectorBytes) % kTableBytes;
    }
    pages_->release({old.offset, old.length});
  });
  co_await commit();
  regions_ = table;
  table_ = regions_.get(kBatRegion);
  pages_->forget(old.offset, old.length);
}

// First the size: entries after it mean nothing. Then their space is free.
Task<void> VhdxNode::shrink(uint64_t size) {
  Parameters smaller = parameters_;
  smaller.size = size;
  const Geometry after = Geometry::of(smaller);
  co_await store_size(size);
  co_await commit();
  // What is cut off must not come back when another program makes the disk larger.
  if (const uint64_t kept = size % block_bytes(); kept != 0) {
    const Entry last = co_await entry(size / block_bytes());
    if (last.has_data()) co_await file_->write_zeroes(last.offset() + kept, block_bytes() - kept);
  }
  for (uint64_t block = after.blocks; block < geometry_.blocks; ++block)
    co_await release_block(block, kNotPresent);
  if (parameters_.has_parent) {
    for (uint64_t chunk = after.chunks(); chunk < geometry_.chunks(); ++chunk) {
      const uint64_t index = geometry_.bitmap_index(chunk);
      const Entry bitmap = co_await entry_at(index);
      if (bitmap.state() != kPresent) continue;
      const PagePtr page = co_await table_page(index);
      pages_->forget(bitmap.offset(), kBitmapBlockBytes);
      pages_->change([&] {
        set_entry(page, index, Entry{});
        pages_->release({bitmap.offset(), kBitmapBlockBytes});
      });
    }
  }
  co_await commit();
  parameters_.size = size;
  geometry_ = after;
  co_await trim_file();
}

}  // namespace cairn
