#include "protocol/nvme/dma.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::nvme {

AddressSpace::AddressSpace(const std::vector<AddressRange>& ranges) {
  for (AddressRange range : ranges) {
    // A controller may take 0 for "none".
    constexpr uint64_t kLeast = 0x10000;
    range.first = std::max(range.first, kLeast);
    // The end of a range is a number as well.
    range.last = std::min(range.last, UINT64_MAX - 1);
    if (range.first <= range.last) free_[range.first] = range.last;
  }
}

uint64_t AddressSpace::take(uint64_t length, uint64_t unit, End end) {
  const auto cut = [&](std::map<uint64_t, uint64_t>::iterator place, uint64_t first) {
    const auto [low, high] = *place;
    free_.erase(place);
    if (low < first) free_[low] = first - 1;
    if (first + (length - 1) < high) free_[first + length] = high;
    return first;
  };
  if (end == End::kLow) {
    for (auto place = free_.begin(); place != free_.end(); ++place) {
      const auto padded = checked_add(place->first, unit - 1);
      if (!padded) break;
      const uint64_t first = align_down(*padded, unit);
      if (first <= place->second && place->second - first >= length - 1) return cut(place, first);
    }
  } else {
    for (auto place = free_.end(); place != free_.begin();) {
      --place;
      if (place->second - place->first < length - 1) continue;
      const uint64_t first = align_down(place->second - (length - 1), unit);
      if (first >= place->first) return cut(place, first);
    }
  }
  throw Error(ErrorKind::kNoSpace, "the device can reach no more memory at a time");
}

void AddressSpace::give_back(uint64_t first, uint64_t length) {
  uint64_t last = first + (length - 1);
  auto after = free_.upper_bound(first);
  if (after != free_.end() && after->first == last + 1) {
    last = after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->second + 1 == first) {
      before->second = last;
      return;
    }
  }
  free_[first] = last;
}

DmaSpace::Mapping DmaSpace::map(ByteSpan memory, bool writable, AddressSpace::End end) {
  const uint64_t unit = device_.map_bytes();
  const uint64_t skipped = reinterpret_cast<uintptr_t>(memory.data()) % unit;
  const uint64_t length = align_up(skipped + memory.size(), unit);
  uint64_t first = 0;
  {
    const std::lock_guard lock(mutex_);
    first = addresses_.take(length, unit, end);
  }
  try {
    device_.map({memory.data() - skipped, length}, first, writable);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    addresses_.give_back(first, length);
    throw;
  }
  Mapping mapping;
  mapping.space_ = this;
  mapping.first_ = first;
  mapping.length_ = length;
  mapping.skipped_ = skipped;
  return mapping;
}

void DmaSpace::unmap(uint64_t first, uint64_t length) noexcept {
  device_.unmap(first, length);
  const std::lock_guard lock(mutex_);
  addresses_.give_back(first, length);
}

namespace {

// What a disk needs at least: queues and some buffers.
constexpr unsigned kNeededMebibytes = 8;

}  // namespace

DmaMemory::DmaMemory(DmaSpace& space, size_t bytes) : buffer_(bytes) {
  // The device would write to the pages of a child that was forked meanwhile, or of its parent.
  ::madvise(buffer_.span().data(), bytes, MADV_DONTFORK);
  try {
    mapping_ = space.map(buffer_.span(), true, AddressSpace::End::kLow);
  } catch (Error& error) {
    if (error.kind() != ErrorKind::kNoMemory) throw;
    throw Error(ErrorKind::kNoMemory,
                fmt::format("{} KiB of memory cannot be locked for the device", bytes >> 10))
        .hint(fmt::format("Allow this process to lock {0} MiB or more: `ulimit -l {1}` in the "
                          "shell, LimitMEMLOCK={0}M in a systemd unit, or a line `memlock` in "
                          "/etc/security/limits.conf.",
                          2 * kNeededMebibytes, 2 * kNeededMebibytes << 10));
  }
}

BouncePool::BouncePool(DmaSpace& space) : space_(space) {
  grow();
  free_.release(idle_.size());
}

// Under mutex_, but for the first time.
void BouncePool::grow() {
  DmaMemory chunk(space_, kAtATime * kBytes);
  for (size_t i = 0; i < kAtATime; ++i)
    idle_.push_back({chunk.span().data() + i * kBytes, chunk.iova() + i * kBytes});
  chunks_.push_back(std::move(chunk));
}

Task<BouncePool::Loan> BouncePool::borrow() {
  {
    const std::lock_guard lock(mutex_);
    ++promised_;
    if (growing_ && promised_ > chunks_.size() * kAtATime) {
      growing_ = chunks_.size() + 1 < kMostChunks;
      try {
        grow();
        free_.release(kAtATime);
      } catch (const Error&) {
        // Those that are there have to do.
        growing_ = false;
      }
    }
  }
  co_await free_.acquire();
  Loan loan;
  const std::lock_guard lock(mutex_);
  loan.pool_ = this;
  loan.place_ = idle_.back();
  idle_.pop_back();
  co_return loan;
}

void BouncePool::take_back(Loan::Place place) {
  {
    const std::lock_guard lock(mutex_);
    --promised_;
    idle_.push_back(place);
  }
  free_.release();
}

}  // namespace cairn::nvme
