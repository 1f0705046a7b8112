#include "format/sample/node.h"

#include <algorithm>

#include "block/context.h"
#include "block/driver.h"

namespace cairn {

using namespace sample;

Task<void> SampleNode::load(OpenContext& request) {
  begin_opening(request.flags);
  header_ = Header::decode(co_await first_bytes(kHeaderBytes));
  set_length(header_.size);
  set_unit(kBlockBytes);
  if (!read_only()) {
    places_.reset(kMaxBlocks);
    for (uint64_t block = 0; block < header_.blocks(); ++block)
      if (const uint32_t entry = co_await table_.entry(block)) places_.use(entry - 1);
  }
  end_opening();
}

// Data past the end of the file is the base class's to refuse.
Task<Mapping> SampleNode::map(uint64_t offset, uint64_t length) {
  const uint32_t entry = co_await table_.entry(offset / kBlockBytes);
  const uint64_t inside = offset % kBlockBytes;
  length = std::min(length, kBlockBytes - inside);
  if (entry == kZero) co_return Mapping::zeroes(length);
  co_return Mapping::stored(length, file_, host_of(entry) + inside);
}

Task<Grant> SampleNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  if (!exclusive) co_return Grant{};
  uint32_t count = 0;
  const uint32_t place = places_.take(1, &count);
  if (count == 0) throw Error(ErrorKind::kNoSpace, "every place of the file is in use");
  const uint64_t begin = align_down(offset, kBlockBytes);
  Grant room =
      grant_new(offset, there.length, begin, begin + kBlockBytes, file_, host_of(place + 1));
  room.token[0] = place;
  co_return room;
}

Task<void> SampleNode::publish(Grant room) {
  table_.write_after_file_flush();
  co_await table_.set_entry(room.offset / kBlockBytes, static_cast<uint32_t>(room.token[0]) + 1);
}

Task<void> SampleNode::abandon(Grant room) {
  places_.give_back(static_cast<uint32_t>(room.token[0]), 1);
  co_return;
}

Task<bool> SampleNode::unmap_unit(uint64_t offset) {
  const uint32_t entry = co_await table_.entry(offset / kBlockBytes);
  if (entry == kZero) co_return true;
  co_await table_.set_entry(offset / kBlockBytes, kZero);
  places_.give_up(entry - 1);
  co_return true;
}

Task<void> SampleNode::flush_mapped() { co_await places_.free_after(table_.flush()); }

Task<void> SampleNode::do_resize(ResizeRequest request) {
  if (request.preallocation != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported, "the sample format has no preallocation");
  const Header changed{.size = request.length};
  const std::vector<std::byte> sector = changed.encode();
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  for (uint64_t block = changed.blocks(); block < header_.blocks(); ++block)
    co_await unmap_unit(block * kBlockBytes);
  if (changed.size < header_.size) co_await zero_unit_after(changed.size);
  co_await flush_mapped();
  co_await file_->write(0, sector);
  co_await file_->flush();
  header_ = changed;
  set_length(header_.size);
}

// Entries that point out of the file, or to a place that another block has; a repair makes them
// zeroes.
Task<CheckResult> SampleNode::check(CheckRequest request) {
  CheckResult result;
  const bool repair = request.repair == CheckRequest::Repair::kAll;
  const uint64_t places = (std::max(file_->length(), kDataOffset) - kDataOffset) / kBlockBytes;
  std::vector<bool> used(places + 1, false);
  for (uint64_t block = 0; block < header_.blocks(); ++block) {
    const uint32_t entry = co_await table_.entry(block);
    if (entry == kZero) continue;
    const bool outside = entry > places;
    if (!outside && !used[entry]) {
      used[entry] = true;
      continue;
    }
    ++result.corruptions;
    if (request.report)
      request.report("ERROR block " + std::to_string(block) +
                     (outside ? " is past the end of the file" : " shares its place with another"));
    if (repair) co_await table_.set_entry(block, kZero);
  }
  if (!repair || result.corruptions == 0) co_return result;
  co_await flush_mapped();
  result.corruptions_fixed = std::exchange(result.corruptions, 0);
  co_return result;
}

}  // namespace cairn
