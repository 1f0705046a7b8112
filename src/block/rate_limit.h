#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

#include "async/task.h"

namespace cairn {

class CancelSource;

// So many bytes a second: each request waits until those before it have had their time. The first
// one does not wait, however long it is. From any worker.
class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(uint64_t bytes_per_second) : rate_(bytes_per_second) {}

  // Returns when BYTES may go. Throws kCancelled soon after CANCEL, unless null, was requested.
  Task<void> admit(uint64_t bytes, const CancelSource* cancel);

 private:
  using Clock = std::chrono::steady_clock;
  const uint64_t rate_;
  std::mutex mutex_;
  Clock::time_point next_{};
};

}  // namespace cairn
