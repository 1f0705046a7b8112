#include "format/vhdx/overlay.h"

#include <algorithm>
#include <cstring>

namespace cairn::vhdx {

// It passes for the file: what it shows is there, at the same offsets.
OverlayNode::OverlayNode(Context& context, NodePtr file, const Header& header)
    : Node(context, file->driver()), file_(std::move(file)), reader_(*file_, header) {
  set_filename(file_->filename());
}

Task<void> OverlayNode::load(const std::vector<LogEntry>& entries) {
  for (const LogEntry& entry : entries)
    co_await reader_.each_target(
        entry, [this](const LogDescriptor& descriptor, uint64_t place) -> Task<void> {
          Change change;
          change.end = descriptor.offset + descriptor.length;
          change.place = place;
          change.what = descriptor;
          if (descriptor.length != 0) put(descriptor.offset, change);
          co_return;
        });
  set_length(std::max(file_->length(), entries.back().last_file));
}

// The later change wins; of an earlier one of zeroes there may be something left on both sides.
void OverlayNode::put(uint64_t begin, Change change) {
  auto at = changes_.upper_bound(begin);
  if (at != changes_.begin()) --at;
  while (at != changes_.end() && at->first < change.end) {
    const auto [old_begin, old] = *at;
    if (old.end <= begin) {
      ++at;
      continue;
    }
    at = changes_.erase(at);
    if (old_begin < begin) {
      Change front = old;
      front.end = begin;
      changes_[old_begin] = front;
    }
    if (old.end > change.end) changes_[change.end] = old;
  }
  changes_[begin] = change;
}

Task<void> OverlayNode::do_read(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    auto at = changes_.upper_bound(offset);
    uint64_t end = offset + out.size();
    if (at != changes_.end()) end = std::min(end, at->first);
    const Change* change = nullptr;
    if (at != changes_.begin()) {
      --at;
      if (at->second.end > offset) change = &at->second;
    }
    if (change != nullptr) end = std::min(end, change->end);
    const MutableByteSpan piece = out.first(end - offset);
    if (change == nullptr) {
      co_await file_->read(offset, piece);
    } else if (change->what.zero) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      std::vector<std::byte> sector(kSectorBytes);
      co_await reader_.read_data(change->what, change->place, sector);
      std::memcpy(piece.data(), sector.data() + (offset - change->what.offset), piece.size());
    }
    offset = end;
    out = out.subspan(piece.size());
  }
}

Task<Extent> OverlayNode::do_extent(uint64_t, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.data = true;
  extent.allocated = true;
  co_return extent;
}

}  // namespace cairn::vhdx
