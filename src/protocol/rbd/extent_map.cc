#include "protocol/rbd/extent_map.h"

#include <algorithm>

#include "base/arith.h"

namespace cairn::rbd {
namespace {

// Of ranges that are kept apart: 16 MiB of memory. More are joined, with the gaps between them.
constexpr size_t kMostRanges = 256 << 10;

uint64_t end_of(uint64_t offset, uint64_t length) {
  return checked_add(offset, length).value_or(UINT64_MAX);
}

}  // namespace

ExtentMap::Change::Change(ExtentMap& map, Kind kind, uint64_t offset, uint64_t length)
    : map_(map), kind_(kind), begin_(offset), end_(end_of(offset, length)) {
  const std::lock_guard lock(map_.mutex_);
  for (Change* other : map_.changes_) {
    if (other->begin_ >= end_ || begin_ >= other->end_) continue;
    if (kind == Kind::kWrite) other->spoilt_ = true;
    if (other->kind_ == Kind::kWrite) spoilt_ = true;
  }
  map_.changes_.push_back(this);
  if (kind == Kind::kWrite && map_.state_ != State::kUnknown) map_.insert(begin_, end_);
}

ExtentMap::Change::~Change() {
  const std::lock_guard lock(map_.mutex_);
  std::erase(map_.changes_, this);
}

void ExtentMap::Change::done() {
  const std::lock_guard lock(map_.mutex_);
  if (map_.state_ == State::kKnown && kind_ == Kind::kZero && !spoilt_) map_.erase(begin_, end_);
}

void ExtentMap::begin() {
  const std::lock_guard lock(mutex_);
  state_ = State::kFilling;
  data_.clear();
  // The cluster may say what was before them.
  for (const Change* change : changes_)
    if (change->kind_ == Change::Kind::kWrite) insert(change->begin_, change->end_);
}

void ExtentMap::add(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  if (length == 0) return;
  // Nobody has use for smaller gaps.
  constexpr uint64_t kUnit = 4096;
  const uint64_t end = end_of(offset, length);
  insert(align_down(offset, kUnit), end > UINT64_MAX - kUnit ? UINT64_MAX : align_up(end, kUnit));
}

void ExtentMap::seal() {
  const std::lock_guard lock(mutex_);
  state_ = State::kKnown;
}

void ExtentMap::forget() {
  const std::lock_guard lock(mutex_);
  state_ = State::kUnknown;
  data_.clear();
}

bool ExtentMap::known() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kKnown;
}

ExtentMap::Run ExtentMap::at(uint64_t offset, uint64_t max) const {
  const std::lock_guard lock(mutex_);
  if (state_ != State::kKnown) return {max, true};
  const auto next = data_.upper_bound(offset);
  if (next != data_.begin()) {
    const auto before = std::prev(next);
    if (before->second > offset) return {std::min(max, before->second - offset), true};
  }
  return {next == data_.end() ? max : std::min(max, next->first - offset), false};
}

void ExtentMap::insert(uint64_t begin, uint64_t end) {
  auto next = data_.upper_bound(begin);
  if (next != data_.begin()) {
    const auto before = std::prev(next);
    if (before->second >= end) return;
    // Touching ranges become one, and so does everything when there are too many.
    if (before->second >= begin || data_.size() >= kMostRanges) {
      begin = before->first;
      next = data_.erase(before);
    }
  } else if (data_.size() >= kMostRanges) {
    end = std::max(end, next->second);
  }
  while (next != data_.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = data_.erase(next);
  }
  data_.emplace(begin, end);
}

void ExtentMap::erase(uint64_t begin, uint64_t end) {
  auto next = data_.upper_bound(begin);
  if (next != data_.begin()) --next;
  while (next != data_.end() && next->first < end) {
    const uint64_t first = next->first, last = next->second;
    if (last <= begin) {
      ++next;
      continue;
    }
    next = data_.erase(next);
    if (first < begin) data_.emplace(first, begin);
    if (last > end) {
      data_.emplace(end, last);
      return;
    }
  }
}

}  // namespace cairn::rbd
