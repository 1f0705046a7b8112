#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace cairn {

// How much of a disk may be read before a warning: a small file may map one cluster, or
// little that is compressed, to petabytes. Counted from any worker.
class DataBudget {
 public:
  // EXCESS is called once, when more than MOST bytes that are no holes were read; it may throw.
  void limit(uint64_t most, std::function<void()> excess) {
    most_ = most;
    excess_ = std::move(excess);
  }
  void count(uint64_t bytes) {
    const uint64_t before = counted_.fetch_add(bytes, std::memory_order_relaxed);
    if (excess_ && before <= most_ && bytes > most_ - before) excess_();
  }

 private:
  uint64_t most_ = UINT64_MAX;
  std::function<void()> excess_;
  std::atomic<uint64_t> counted_{0};
};

}  // namespace cairn
