#include "job/lost_ranges.h"

#include <utility>

namespace cairn {

void LostRanges::add(uint64_t offset, uint64_t bytes, const std::string& cause) {
  const std::lock_guard lock(mutex_);
  bytes_ += bytes;
  Range range{.offset = offset, .bytes = bytes, .cause = cause};
  if (const auto before = ranges_.find(offset); before != ranges_.end()) {
    range = std::move(before->second);
    range.bytes += bytes;
    ranges_.erase(before);
  }
  const uint64_t end = offset + bytes;
  const auto after = ranges_.upper_bound(end);
  if (after != ranges_.end() && after->second.offset == end) {
    after->second.offset = range.offset;
    after->second.bytes += range.bytes;
    after->second.cause = std::move(range.cause);
  } else if (ranges_.size() < kMostRanges) {
    ranges_.emplace(end, std::move(range));
  }
}

std::vector<LostRanges::Range> LostRanges::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<Range> all;
  for (const auto& [end, range] : ranges_) all.push_back(range);
  return all;
}

uint64_t LostRanges::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace cairn
