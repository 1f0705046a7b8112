#include "block/rate_limit.h"

#include <algorithm>

#include "async/cancel.h"
#include "async/runtime.h"

namespace cairn {
namespace {

constexpr auto kCancelPeriod = std::chrono::milliseconds(100);
// A request that would take longer than a year is no reason to count on.
constexpr double kMostSeconds = 3e7;

}  // namespace

Task<void> RateLimit::admit(uint64_t bytes, const CancelSource* cancel) {
  if (rate_ == 0) co_return;
  const std::chrono::duration<double> cost(
      std::min(static_cast<double>(bytes) / static_cast<double>(rate_), kMostSeconds));
  Clock::time_point start;
  {
    const std::lock_guard lock(mutex_);
    start = std::max(Clock::now(), next_);
    next_ = start + std::chrono::duration_cast<Clock::duration>(cost);
  }
  for (auto now = Clock::now(); now < start; now = Clock::now()) {
    if (cancel != nullptr) cancel->check();
    co_await sleep_for(std::min<Clock::duration>(start - now, kCancelPeriod));
  }
}

}  // namespace cairn
