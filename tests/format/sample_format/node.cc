#include "format/sample/node.h"

#include <algorithm>

#include "block/block_table.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn {

using namespace sample;

namespace {
constexpr uint32_t kPartBytes = 4096;  // of the table, read and written together
constexpr uint64_t kPerPart = kPartBytes / 4;
constexpr size_t kMaxParts = 256;
uint64_t part_of(uint64_t block) { return kTableOffset + block / kPerPart * kPartBytes; }
}  // namespace

SampleNode::SampleNode(Context& context, const Driver& driver, NodePtr file)
    : FormatNode(context, driver), file_(file.get()) {
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<void> SampleNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  begin_opening(request.flags);
  std::vector<std::byte> sector(kHeaderBytes);
  co_await file_->read(0, sector);
  header_ = Header::decode(sector);
  set_length(header_.size);
  mutable_limits().cluster_bytes = kBlockBytes;
  mutable_limits().zero_alignment = kBlockBytes;
  mutable_limits().discard_alignment = kBlockBytes;
  table_ = std::make_unique<TableCache>(this, *file_, kPartBytes, kMaxParts, kDataOffset);
  if (!read_only()) {
    const uint64_t end = std::max(file_->length(), kDataOffset);
    next_ = static_cast<uint32_t>(1 + div_ceil(end - kDataOffset, kBlockBytes));
    std::vector<bool> used(next_, false);
    for (uint64_t block = 0; block < header_.blocks(); ++block) {
      const uint32_t place = co_await entry(block);
      if (place != kZero && place < next_) used[place] = true;
    }
    for (uint32_t place = 1; place < next_; ++place)
      if (!used[place]) free_.push_back(place);
  }
  end_opening();
}

Task<uint32_t> SampleNode::entry(uint64_t block) {
  TableCache::Ref part = table_->try_get(part_of(block));
  if (!part) part = co_await table_->get(part_of(block));
  co_return load_entry<uint32_t, std::endian::little>(part, block % kPerPart);
}

Task<void> SampleNode::set_entry(uint64_t block, uint32_t value) {
  const TableCache::Ref part = co_await table_->get(part_of(block));
  store_entry<uint32_t, std::endian::little>(part, block % kPerPart, value);
  table_->mark_dirty(part);
}

// Data past the end of the file is the base class's to refuse.
Task<Mapping> SampleNode::map(uint64_t offset, uint64_t length) {
  const uint32_t place = co_await entry(offset / kBlockBytes);
  const uint64_t inside = offset % kBlockBytes;
  Mapping result;
  result.length = std::min(length, kBlockBytes - inside);
  result.kind = place == kZero ? Mapping::Kind::kZero : Mapping::Kind::kChild;
  if (place != kZero) {
    result.host = file_;
    result.host_offset = host_of(place) + inside;
  }
  co_return result;
}

uint32_t SampleNode::take_place() {
  const std::lock_guard lock(places_mutex_);
  if (free_.empty()) return next_++;
  const uint32_t place = free_.back();
  free_.pop_back();
  return place;
}

Task<Grant> SampleNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  if (!exclusive) co_return Grant{};
  const uint64_t begin = align_down(offset, kBlockBytes);
  const uint32_t place = take_place();
  Grant room = grant_new(offset, there.length, begin, begin + kBlockBytes, file_, host_of(place));
  room.token[0] = place;
  co_return room;
}

Task<void> SampleNode::publish(Grant place) {
  table_->write_after_file_flush();
  co_await set_entry(place.offset / kBlockBytes, static_cast<uint32_t>(place.token[0]));
}

Task<void> SampleNode::abandon(Grant place) {
  const std::lock_guard lock(places_mutex_);
  free_.push_back(static_cast<uint32_t>(place.token[0]));
  co_return;
}

Task<void> SampleNode::give_up(uint64_t block) {
  const uint32_t place = co_await entry(block);
  if (place == kZero) co_return;
  co_await set_entry(block, kZero);
  const std::lock_guard lock(places_mutex_);
  given_up_.push_back(place);
}

Task<uint64_t> SampleNode::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kZero) co_return there.length;
  if (!may_unmap) co_return 0;
  co_await give_up(offset / kBlockBytes);
  co_return there.length;
}

Task<void> SampleNode::discard_mapped(uint64_t offset, uint64_t length) {
  for (uint64_t at = offset; at < offset + length; at += kBlockBytes)
    co_await give_up(at / kBlockBytes);
}

Task<void> SampleNode::flush_mapped() {
  std::vector<uint32_t> freed;
  {
    const std::lock_guard lock(places_mutex_);
    freed.swap(given_up_);
  }
  co_await table_->write_back();
  co_await file_->flush();
  const std::lock_guard lock(places_mutex_);
  free_.insert(free_.end(), freed.begin(), freed.end());
}

// What is cut off must not show up when the disk grows again.
Task<void> SampleNode::do_resize(ResizeRequest request) {
  if (request.preallocation != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported, "the sample format has no preallocation");
  Header changed = header_;
  changed.size = request.length;
  changed.validate();
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  for (uint64_t block = changed.blocks(); block < header_.blocks(); ++block)
    co_await give_up(block);
  if (const uint64_t rest = changed.size % kBlockBytes; rest != 0 && changed.size < header_.size) {
    const uint32_t place = co_await entry(changed.size / kBlockBytes);
    if (place != kZero) co_await file_->write_zeroes(host_of(place) + rest, kBlockBytes - rest);
  }
  co_await flush_mapped();
  std::vector<std::byte> sector(kHeaderBytes);
  changed.encode(sector);
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
    const uint32_t place = co_await entry(block);
    if (place == kZero) continue;
    const bool outside = place > places;
    if (!outside && !used[place]) {
      used[place] = true;
      continue;
    }
    ++result.corruptions;
    if (request.report)
      request.report("ERROR block " + std::to_string(block) +
                     (outside ? " is past the end of the file" : " shares its place with another"));
    if (repair) co_await set_entry(block, kZero);
  }
  if (!repair || result.corruptions == 0) co_return result;
  co_await flush_mapped();
  result.corruptions_fixed = std::exchange(result.corruptions, 0);
  co_return result;
}

}  // namespace cairn
