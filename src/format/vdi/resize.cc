#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"
#include "format/vdi/node.h"

namespace cairn {

using namespace vdi;

Task<void> VdiNode::copy_block(uint32_t from, uint32_t to) {
  AlignedBuffer bytes(kBlockBytes);
  co_await file_->read(host_of(from), bytes.span());
  co_await file_->write(host_of(to), std::as_const(bytes).span());
}

Task<void> VdiNode::do_resize(ResizeRequest request) {
  if (header_.has_parent())
    throw Error(ErrorKind::kUnsupported,
                "VDI: a snapshot has the size of its parent and cannot be resized");
  if (request.preallocation != Preallocation::kOff &&
      (header_.type != kStatic || request.preallocation == Preallocation::kMetadata))
    throw Error(ErrorKind::kUnsupported, "VDI: unsupported preallocation mode '" +
                                             std::string(to_string(request.preallocation)) + "'");
  if (request.length > kMaxSize) Header::fresh(request.length, false);  // says how large it may be
  if (!counter_trusted_)
    throw Error(ErrorKind::kCorrupt,
                fmt::format("VDI: the header counts {} blocks of {}: repair the image first",
                            header_.allocated, header_.blocks));
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  if (request.length < length())
    co_await shrink(request.length);
  else
    co_await grow(request.length, request.preallocation);
}

Task<void> VdiNode::grow(uint64_t length, Preallocation mode) {
  const auto blocks = static_cast<uint32_t>(div_ceil(length, kBlockBytes));
  const uint32_t before = header_.blocks;
  if (blocks > before) {
    const uint64_t map_bytes = align_up(uint64_t{blocks} * 4, 512);
    if (header_.map_offset + map_bytes > header_.data_offset) co_await make_room_for_map(map_bytes);
    // The new entries are written before the header makes them part of the map.
    std::vector<std::byte> entries((blocks - before) * uint64_t{4}, std::byte{0xff});
    for (uint32_t i = 0; header_.type == kStatic && i < blocks - before; ++i)
      store_le<uint32_t>(entries, i * size_t{4}, before + i);
    co_await file_->write(header_.map_offset + before * uint64_t{4}, entries);
    co_await file_->flush();
    table_->forget(header_.map_offset, map_bytes);
    blocks_.set_limit(blocks, header_.type == kStatic);
    header_.blocks = blocks;
    if (header_.type == kStatic) {
      ResizeRequest larger{.length = host_of(blocks), .preallocation = mode};
      co_await file_->resize(larger);
    }
  }
  header_.size = length;
  co_await write_header();
  co_await file_->flush();
  set_length(length);
}

// Gives the map BYTES at a place after its own, where the first blocks of data are. They move to
// the end of the file first, and the map follows them, so that at any moment one map is true.
Task<void> VdiNode::make_room_for_map(uint64_t bytes) {
  const auto shift = static_cast<uint32_t>(div_ceil(bytes, kBlockBytes));
  const uint64_t new_map = header_.data_offset;
  if (new_map + shift * kBlockBytes > UINT32_MAX - 511)
    throw Error(ErrorKind::kTooLarge, "VDI: there is no room for a larger block map");
  std::vector<std::byte> raw(header_.blocks * uint64_t{4});
  co_await file_->read(header_.map_offset, raw);
  uint32_t end = std::max(blocks_.end(), shift);
  std::vector<std::pair<uint32_t, uint32_t>> moved;  // block, its new place
  for (uint32_t i = 0; i < header_.blocks; ++i) {
    const auto physical = load_le<uint32_t>(raw, i * size_t{4});
    if (physical >= shift) continue;
    co_await copy_block(physical, end);
    moved.emplace_back(i, end++);
  }
  co_await file_->flush();
  for (const auto& [block, place] : moved) {
    co_await table_->set_entry(block, place);
    store_le<uint32_t>(raw, block * size_t{4}, place);
  }
  co_await table_->flush();
  blocks_.reset(header_.blocks);
  for (uint32_t i = 0; i < header_.blocks; ++i) {
    const auto physical = load_le<uint32_t>(raw, i * size_t{4});
    if (physical >= kZero) continue;
    store_le<uint32_t>(raw, i * size_t{4}, physical - shift);
    blocks_.use(physical - shift);
  }
  co_await file_->write(new_map, raw);
  co_await file_->flush();
  header_.map_offset = new_map;
  header_.data_offset = new_map + shift * kBlockBytes;
  blocks_.raise_end(end - shift);
  make_table();
  co_await write_header();
  co_await file_->flush();
}

Task<void> VdiNode::shrink(uint64_t length) {
  header_.size = length;
  co_await write_header();
  co_await file_->flush();
  set_length(length);
  const auto blocks = static_cast<uint32_t>(div_ceil(length, kBlockBytes));
  // What is cut off must not show up when the disk grows again.
  co_await zero_unit_after(length);
  for (uint64_t block = blocks; block < header_.blocks; ++block) {
    const uint32_t physical = co_await entry(block);
    if (physical < kZero) co_await unmap_unit(block * kBlockBytes);
  }
  co_await flush_mapped();
  co_await close_holes();
  if (blocks_.end() > blocks) co_return;  // a damaged map keeps its entries
  header_.blocks = blocks;
  blocks_.set_limit(blocks);
  make_table();
  co_await write_header();
  co_await file_->flush();
}

// Moves the last blocks of the file into the places of those that were given up, so that the blocks
// in use are the first ones, which is what other programs take for granted. Needs a flushed map.
Task<void> VdiNode::close_holes() {
  std::vector<std::pair<uint64_t, uint32_t>> all;
  std::vector<bool> used(header_.blocks, false);
  bool sound = true;
  co_await each_used([&](uint64_t block, uint32_t physical) {
    if (physical >= header_.blocks || used[physical])
      sound = false;
    else
      used[physical] = true;
    all.emplace_back(block, physical);
  });
  if (!sound) co_return;
  const auto count = static_cast<uint32_t>(all.size());
  uint32_t hole = 0;
  std::vector<std::pair<uint64_t, uint32_t>> moved;
  for (const auto& [block, physical] : all) {
    if (physical < count) continue;
    while (used[hole]) ++hole;
    co_await copy_block(physical, hole);
    moved.emplace_back(block, hole++);
  }
  co_await file_->flush();
  for (const auto& [block, place] : moved) co_await table_->set_entry(block, place);
  co_await table_->flush();
  blocks_.reset(header_.blocks, count);
  holes_made_ = false;
  co_await write_header();
  co_await file_->flush();
  if (file_->length() > host_of(count)) co_await file_->resize({.length = host_of(count)});
  virgin_ = std::min(virgin_, std::max(host_of(count), file_->length()));
}

Task<void> VdiNode::do_close() {
  if (!read_only() && table_) {
    co_await flush_mapped();
    if (holes_made_) {
      RangeLock::Guard all;
      co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
      co_await close_holes();
    }
  }
  co_await Node::do_close();
}

}  // namespace cairn
