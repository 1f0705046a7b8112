#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/vdi/node.h"

namespace cairn {

using namespace vdi;

namespace {
// The map is written by sectors; each has the entries of 128 blocks.
constexpr uint32_t kMapBlockBytes = 512;
constexpr size_t kMapBlocks = 8192;
// How much of the map is read at a time where all of it is.
constexpr size_t kScanBytes = 1 << 20;
}  // namespace

Task<void> VdiNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  const std::vector<std::byte> sector = co_await first_bytes(kHeaderBytes);
  header_ = Header::decode(sector, file_->length(), context().profile.extensions);
  if (header_.type > kStatic && !header_.has_parent()) {
    const std::string what =
        header_.type == kUndo ? "an undo image" : "a differencing image without its parent";
    if (!read_only())
      throw Error(ErrorKind::kDenied, "VDI: " + what + " cannot be opened for writing");
    context().warn("VDI: this is " + what + "; only what it holds itself is shown");
  }
  set_length(header_.size);
  set_unit(kBlockBytes);
  co_await open_parent(request);
  if (request.flags.metadata_only) co_return;
  make_table();
  if (read_only()) co_return;
  co_await read_used();
  if (context().profile.past_end == PastEnd::kRefuse && !request.flags.for_check &&
      reaches_past_end(*file_, host_of(blocks_.end()), 0))
    co_await refuse_cut();
}

void VdiNode::make_table() {
  table_ = std::make_unique<FlatTable<uint32_t, std::endian::little>>(
      this, *file_, "block-map", header_.map_offset, header_.blocks, kMapBlockBytes, kMapBlocks);
  table_->set_before_write([this] { return write_header(); });
}

uint64_t VdiNode::host_of(uint32_t physical) const {
  return header_.data_offset + uint64_t{physical} * kBlockBytes;
}

Task<uint32_t> VdiNode::entry(uint64_t block) {
  const uint32_t value = co_await table_->entry(block);
  // Growing the map may need more places for a moment; no other program writes such numbers.
  if (value < kZero && value >= header_.blocks &&
      host_of(value) + kBlockBytes > align_up(file_->length(), 512))
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("The block map says that block {} of the disk is block {} of the file, "
                          "but there are {}.",
                          block, value, header_.blocks));
  co_return value;
}

Task<void> VdiNode::each_used(std::function<void(uint64_t, uint32_t)> visit) {
  std::vector<std::byte> part;
  for (uint64_t block = 0; block < header_.blocks;) {
    const uint64_t count = std::min<uint64_t>(kScanBytes / 4, header_.blocks - block);
    part.resize(count * 4);
    co_await file_->read(header_.map_offset + block * 4, part);
    for (uint64_t i = 0; i < count; ++i) {
      const auto physical = load_le<uint32_t>(part, i * 4);
      if (physical < kZero) visit(block + i, physical);
    }
    block += count;
  }
}

// Which blocks of the file are in use: a counter that is too low must not give one twice.
Task<void> VdiNode::read_used() {
  blocks_.reset(header_.blocks);
  co_await each_used([&](uint64_t, uint32_t physical) { blocks_.use(physical); });
  counter_trusted_ = header_.allocated <= header_.blocks;
  if (counter_trusted_) blocks_.raise_end(header_.allocated);
  if (file_->reads_zero_when_created()) virgin_ = file_->length();
}

// Blocks that have none become zeroes as well, where the parent had them.
Task<bool> VdiNode::unmap_unit(uint64_t offset) {
  if (header_.type == kStatic) co_return false;
  const uint64_t block = offset / kBlockBytes;
  const uint32_t physical = co_await entry(block);
  co_await table_->set_entry(block, kZero);
  if (physical < kZero) blocks_.give_up(physical);
  co_return true;
}

Task<Mapping> VdiNode::map(uint64_t offset, uint64_t length) {
  uint64_t block = offset / kBlockBytes;
  const uint32_t first = co_await entry(block);
  const bool data = first < kZero;
  // What a snapshot has never written comes from its parent.
  const bool below = !data && header_.has_parent();
  uint64_t end = (block + 1) * kBlockBytes;
  for (uint32_t expected = first; end < offset + length; end += kBlockBytes) {
    const uint32_t next = co_await entry(++block);
    if (data ? next != ++expected : next < kZero || (below && next != first)) break;
  }
  Mapping result;
  result.length = std::min(length, end - offset);
  result.kind = data                      ? Mapping::Kind::kChild
                : below && first == kFree ? Mapping::Kind::kBelow
                                          : Mapping::Kind::kZero;
  if (data) {
    result.host = file_;
    result.host_offset = host_of(first) + offset % kBlockBytes;
  }
  co_return result;
}

Task<Grant> VdiNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  if (!exclusive) co_return Grant{};
  if (!counter_trusted_)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format(
            "The header counts {} blocks, but there are {}; `check -r all` corrects it.",
            header_.allocated, header_.blocks));
  const uint64_t start = align_down(offset, kBlockBytes);
  const uint64_t wanted = div_ceil(offset + there.length - start, kBlockBytes);
  uint32_t count = 0;
  uint32_t physical = blocks_.take(wanted, &count);
  if (count == 0) {
    // What was given up can be had once the map is on disk.
    co_await flush_mapped();
    physical = blocks_.take(wanted, &count);
  }
  if (count == 0)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint("Every block of the file is in use although the disk is not full.");
  length = std::min(there.length, start + count * kBlockBytes - offset);
  Grant place = grant_new(offset, length, start, align_up(offset + length, kBlockBytes), file_,
                          host_of(physical));
  place.token[0] = physical;
  place.token[1] = count;
  std::lock_guard lock(mutex_);
  place.host_is_zero = host_of(physical) >= virgin_;
  virgin_ = std::max(virgin_, host_of(physical + count));
  co_return place;
}

Task<void> VdiNode::publish(Grant place) {
  table_->write_after_file_flush();
  const uint64_t block = place.offset / kBlockBytes;
  for (uint64_t i = 0; i < place.token[1]; ++i)
    co_await table_->set_entry(block + i, static_cast<uint32_t>(place.token[0] + i));
}

Task<void> VdiNode::abandon(Grant place) {
  blocks_.give_back(static_cast<uint32_t>(place.token[0]), static_cast<uint32_t>(place.token[1]));
  co_return;
}

Task<void> VdiNode::discard_mapped(uint64_t offset, uint64_t length) {
  for (uint64_t at = offset; at < offset + length; at += kBlockBytes) {
    const uint32_t physical = co_await entry(at / kBlockBytes);
    if (physical < kZero) co_await unmap_unit(at);
  }
}

Task<void> VdiNode::write_header() {
  std::vector<std::byte> sector(kHeaderBytes);
  {
    std::lock_guard lock(mutex_);
    if (counter_trusted_) header_.allocated = blocks_.end();
    header_.encode(sector);
  }
  co_await file_->write(0, sector);
}

Task<void> VdiNode::flush_mapped() {
  const bool freed = co_await blocks_.free_after(table_->flush());
  std::lock_guard lock(mutex_);
  holes_made_ = holes_made_ || freed;
}

}  // namespace cairn
