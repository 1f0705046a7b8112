#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

namespace cairn::live {

// How many bytes a second may go, where that changes at any time. One piece always goes, however
// long it is; those after it wait until its time is over. From any thread.
class Speed {
 public:
  using Clock = std::chrono::steady_clock;

  // Bytes a second; 0: no limit. What waits has to ask again.
  void set(uint64_t bytes_per_second);
  uint64_t rate() const;
  // Takes BYTES, or says how long it takes until there is a chance for it: then nothing was taken.
  Clock::duration take(uint64_t bytes, Clock::time_point now = Clock::now());

 private:
  double least() const;
  void settle(Clock::time_point now);

  mutable std::mutex mutex_;
  uint64_t rate_ = 0;
  double debt_ = 0;  // bytes whose time is not over at SETTLED; below 0: time left over
  Clock::time_point settled_{};
};

}  // namespace cairn::live
