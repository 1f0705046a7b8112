#include "job/live/speed.h"

#include <algorithm>

namespace cairn::live {
namespace {

// A request that would take longer than a year is no reason to count on.
constexpr double kMostSeconds = 3e7;
// Time that was not used counts later, so that sleeps which last a little too long cost nothing.
constexpr double kCreditSeconds = 0.05;

}  // namespace

double Speed::least() const { return -kCreditSeconds * static_cast<double>(rate_); }

// Takes off what the time since the last call has paid. mutex_ is held.
void Speed::settle(Clock::time_point now) {
  if (now <= settled_) return;
  const std::chrono::duration<double> passed = now - settled_;
  debt_ = std::max(least(), debt_ - passed.count() * static_cast<double>(rate_));
  settled_ = now;
}

void Speed::set(uint64_t bytes_per_second) {
  const std::lock_guard lock(mutex_);
  settle(Clock::now());
  rate_ = bytes_per_second;
  if (rate_ == 0) debt_ = 0;
}

uint64_t Speed::rate() const {
  const std::lock_guard lock(mutex_);
  return rate_;
}

Speed::Clock::duration Speed::take(uint64_t bytes, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (rate_ == 0) return {};
  settle(now);
  // Less than a byte is what the numbers lose.
  if (debt_ >= 1) {
    const std::chrono::duration<double> rest(
        std::min(debt_ / static_cast<double>(rate_), kMostSeconds));
    return std::max(std::chrono::duration_cast<Clock::duration>(rest),
                    Clock::duration(std::chrono::microseconds(1)));
  }
  debt_ += static_cast<double>(bytes);
  return {};
}

}  // namespace cairn::live
