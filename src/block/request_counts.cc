#include "block/request_counts.h"

#include <algorithm>
#include <numeric>

#include "async/runtime.h"

namespace cairn {

std::string_view to_string(RequestKind kind) {
  switch (kind) {
    case RequestKind::kRead:
      return "read";
    case RequestKind::kWrite:
      return "write";
    case RequestKind::kZero:
      return "zero";
    case RequestKind::kDiscard:
      return "discard";
    case RequestKind::kFlush:
      break;
  }
  return "flush";
}

uint64_t RequestSums::requests() const {
  return std::accumulate(by_duration.begin(), by_duration.end(), uint64_t{0});
}

RequestCounts::RequestCounts(unsigned workers) : shares_(workers + 1) {}

void RequestCounts::add(RequestKind kind, uint64_t bytes, std::chrono::nanoseconds duration,
                        bool succeeded) {
  const Worker* worker = Worker::current();
  const size_t all_others = shares_.size() - 1;
  size_t index = all_others;
  if (worker != nullptr) index = worker->resident_index().value_or(all_others);
  Numbers& numbers = shares_[std::min(index, all_others)].kinds[static_cast<size_t>(kind)];
  const auto took = static_cast<uint64_t>(std::max<int64_t>(duration.count(), 0));
  const auto bound = std::lower_bound(kDurationBounds.begin(), kDurationBounds.end(), took);
  const auto place = static_cast<size_t>(bound - kDurationBounds.begin());
  numbers.by_duration[place].fetch_add(1, std::memory_order_relaxed);
  numbers.nanoseconds.fetch_add(took, std::memory_order_relaxed);
  if (succeeded)
    numbers.bytes.fetch_add(bytes, std::memory_order_relaxed);
  else
    numbers.failed.fetch_add(1, std::memory_order_relaxed);
}

RequestSums RequestCounts::sums(RequestKind kind) const {
  RequestSums sums;
  for (const Share& share : shares_) {
    const Numbers& numbers = share.kinds[static_cast<size_t>(kind)];
    sums.failed += numbers.failed.load(std::memory_order_relaxed);
    sums.bytes += numbers.bytes.load(std::memory_order_relaxed);
    sums.nanoseconds += numbers.nanoseconds.load(std::memory_order_relaxed);
    for (size_t i = 0; i < kDurationClasses; ++i)
      sums.by_duration[i] += numbers.by_duration[i].load(std::memory_order_relaxed);
  }
  return sums;
}

CountedRequest::~CountedRequest() {
  if (counts_ == nullptr) return;
  counts_->add(kind_, bytes_, std::chrono::steady_clock::now() - begin_, succeeded_);
}

}  // namespace cairn
