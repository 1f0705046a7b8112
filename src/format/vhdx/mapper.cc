#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/block_table.h"
#include "format/vhdx/node.h"

namespace cairn {

using namespace vhdx;

namespace {
constexpr uint64_t kPerPage = kSectorBytes / 8;
}  // namespace

Task<PagePtr> VhdxNode::table_page(uint64_t index) {
  const uint64_t at = table_.offset + index / kPerPage * kSectorBytes;
  PagePtr page = pages_->try_get(at);
  if (!page) page = co_await pages_->get(at);
  co_return page;
}

Task<Entry> VhdxNode::entry_at(uint64_t index) {
  const PagePtr page = co_await table_page(index);
  co_return Entry{page->entry(index % kPerPage)};
}

// Throws for an entry that cannot be followed.
void VhdxNode::check_entry(uint64_t block, Entry entry) const {
  std::string wrong;
  if (entry.state() == kReserved || (entry.state() == kOldUnmapped && parameters_.has_parent) ||
      (entry.state() == kPartial && !parameters_.has_parent))
    wrong = "state " + std::to_string(entry.state());
  else if (entry.has_data() && (entry.offset() < kMiB || entry.reserved_bits()))
    wrong = "entry " + std::to_string(entry.value);
  else if (entry.has_data() && !shared_.empty() && shared_.contains(entry.offset()))
    wrong = "space that another block has as well";
  if (!wrong.empty())
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("Block {} of the disk has {}.", block, wrong));
}

// The place of the bitmap block for BLOCK's chunk; 0 when there is none.
Task<uint64_t> VhdxNode::bitmap_of(uint64_t block) {
  const uint64_t index = geometry_.bitmap_index(block / geometry_.chunk_blocks);
  const Entry entry = co_await entry_at(index);
  if (entry.state() == kNotPresent) co_return 0;
  if (entry.state() != kPresent || entry.offset() < kMiB || entry.reserved_bits() ||
      shared_.contains(entry.offset()))
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("Entry {} of the block allocation table is not a bitmap.", index));
  co_return entry.offset();
}

// Whether the sector at BEGIN in BLOCK is in this file, and for how many bytes on, up to END, the
// answer holds.
Task<bool> VhdxNode::sectors_here(uint64_t block, uint64_t begin, uint64_t end, uint64_t* run) {
  const uint64_t bitmap = co_await bitmap_of(block);
  if (bitmap == 0)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("Block {} is present in part, without a bitmap.", block));
  const uint64_t sector_bytes = parameters_.logical_sector;
  const uint64_t first = block % geometry_.chunk_blocks * block_bytes() / sector_bytes;
  bool here = false;
  PagePtr page;
  uint64_t at = begin;
  while (at < end) {
    const uint64_t sector = first + at / sector_bytes;
    const uint64_t byte = sector / 8;
    if (!page || page->offset != bitmap + align_down(byte, kSectorBytes))
      page = co_await pages_->get(bitmap + align_down(byte, kSectorBytes), true);
    const auto bits = std::to_integer<unsigned>(page->bytes[byte % kSectorBytes]);
    const bool set = (bits >> sector % 8 & 1) != 0;
    if (at == begin)
      here = set;
    else if (set != here)
      break;
    // Whole bytes at a time where they are alike.
    const bool whole = sector % 8 == 0 && bits == (here ? 255u : 0u);
    at = (at / sector_bytes + (whole ? 8 : 1)) * sector_bytes;
  }
  *run = std::min(at, end) - begin;
  co_return here;
}

Task<Mapping> VhdxNode::map(uint64_t offset, uint64_t length) {
  uint64_t block = offset / block_bytes();
  const uint64_t in_block = offset % block_bytes();
  const Entry first = co_await entry(block);
  check_entry(block, first);
  Mapping result;
  result.length = std::min(length, block_bytes() - in_block);
  if (first.state() == kPartial) {
    uint64_t run = 0;
    const bool here = co_await sectors_here(block, in_block, in_block + result.length, &run);
    result.length = run;
    if (!here) co_return result;
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = first.offset() + in_block;
    co_return result;
  }
  const auto kind_of = [this](Entry entry) {
    if (entry.state() == kPresent) return Mapping::Kind::kChild;
    if (entry.state() == kNotPresent && parameters_.has_parent) return Mapping::Kind::kBelow;
    return Mapping::Kind::kZero;
  };
  result.kind = kind_of(first);
  uint64_t place = first.offset();
  while (result.length < length) {
    const Entry next = co_await entry(++block);
    if (next.state() == kPartial || kind_of(next) != result.kind) break;
    if (next.state() == kReserved || next.state() == kOldUnmapped) break;
    place += block_bytes();
    if (next.state() == kPresent && (next.offset() != place || next.reserved_bits())) break;
    if (next.state() == kPresent && !shared_.empty()) break;
    result.length = std::min(length, result.length + block_bytes());
  }
  if (result.kind == Mapping::Kind::kChild) {
    result.host = file_;
    result.host_offset = first.offset() + in_block;
  }
  co_return result;
}

Task<Grant> VhdxNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  if (!damage_.empty())
    throw Error(ErrorKind::kDenied, "Input/output error")
        .hint("The image is damaged and can only be read: " + damage_ + ".");
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) {
    co_await begin_change();
    co_return grant_in_place(offset, there);
  }
  if (!exclusive) co_return Grant{};
  co_await begin_change();
  if (pages_->dirty() > 100) co_await commit();
  const uint64_t bytes = block_bytes();
  const uint64_t start = align_down(offset, bytes);
  Grant place;
  if (there.kind == Mapping::Kind::kBelow) {
    // One block; what is not written stays the parent's.
    const uint64_t end = start + bytes;
    length = std::min(there.length, end - offset);
    const Entry now = co_await entry(offset / bytes);
    const bool there_in_part = now.state() == kPartial;
    uint64_t host = now.offset();
    if (!there_in_part) host = co_await take_room(bytes);
    const uint64_t sector = parameters_.logical_sector;
    const uint64_t begin = align_down(offset, sector);
    place = grant_new(offset, length, begin, std::min(align_up(offset + length, sector), end),
                      file_, host + begin - start);
    place.token[0] = host;
    place.token[1] = length == bytes && !there_in_part ? kPresent : kPartial;
    place.token[2] = there_in_part ? 1 : 0;
    place.token[3] = bytes;
  } else {
    // As many blocks as the request covers, if there is room for them in one piece.
    const uint64_t end = align_up(offset + there.length, bytes);
    const uint64_t host = co_await take_room(end - start);
    place = grant_new(offset, there.length, start, end, file_, host);
    place.host_is_zero = true;
    place.token[0] = host;
    place.token[1] = kPresent;
    place.token[3] = end - start;
  }
  co_return place;
}

Task<void> VhdxNode::publish(Grant place) {
  if (place.token[1] == kPartial) co_return co_await publish_partial(place);
  const uint64_t first = place.offset / block_bytes();
  const uint64_t count = place.token[3] / block_bytes();
  std::vector<std::pair<PagePtr, uint64_t>> entries;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t index = geometry_.index_of(first + i);
    PagePtr page = co_await table_page(index);
    entries.emplace_back(std::move(page), index);
  }
  pages_->change([&] {
    uint64_t at = place.token[0];
    for (const auto& [page, index] : entries) {
      set_entry(page, index, Entry::make(kPresent, at));
      at += block_bytes();
    }
  });
}

Task<void> VhdxNode::abandon(Grant place) {
  if (place.token[2] == 0) give_room({place.token[0], place.token[3]});
  co_return;
}

Task<uint64_t> VhdxNode::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  if (!damage_.empty()) co_return 0;
  const Mapping there = co_await map(offset, length);
  co_await begin_change();
  const bool keep = parameters_.leave_allocated || !may_unmap;
  if (there.kind == Mapping::Kind::kChild && keep) {
    const Entry first = co_await entry(offset / block_bytes());
    if (first.state() == kPresent) {
      co_await file_->write_zeroes(there.host_offset, there.length);
      co_return there.length;
    }
  }
  if (there.kind == Mapping::Kind::kZero && parameters_.leave_allocated) {
    const Entry first = co_await entry(offset / block_bytes());
    if (first.state() == kZeroBlock) co_return there.length;
  }
  // A block that is present in part ends the mapping before its own end.
  const uint64_t covered = std::min(length, align_up(there.length, block_bytes()));
  for (uint64_t at = offset; at < offset + covered; at += block_bytes())
    co_await release_block(at / block_bytes(), kZeroBlock);
  co_return covered;
}

// Zeroes, rather than the state that lets other programs show anything.
Task<void> VhdxNode::discard_mapped(uint64_t offset, uint64_t length) {
  if (parameters_.leave_allocated || !damage_.empty()) co_return;
  co_await begin_change();
  for (uint64_t at = offset; at < offset + length; at += block_bytes()) {
    const Entry there = co_await entry(at / block_bytes());
    if (there.has_data()) co_await release_block(at / block_bytes(), kZeroBlock);
  }
}

Task<void> VhdxNode::flush_mapped() {
  if (read_only()) co_return co_await file_->flush();
  co_await commit();
}

Task<void> VhdxNode::do_close() {
  if (read_only() || !journal_) co_return;
  if (pages_->changed()) co_await commit();
  if (!log_damaged_) co_await journal_->empty_log();
}

}  // namespace cairn
