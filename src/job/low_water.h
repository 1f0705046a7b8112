#pragma once

#include <cstdint>
#include <mutex>
#include <set>

namespace cairn {

// Up to where pieces that are handed out in order, and finished in any, are all finished. Any
// thread may call.
class LowWater {
 public:
  explicit LowWater(uint64_t begin) : next_(begin) {}

  // The piece from OFFSET, where the one before ended, to END is handed out.
  void begin(uint64_t offset, uint64_t end) {
    const std::lock_guard lock(mutex_);
    open_.insert(offset);
    next_ = end;
  }
  // The piece at OFFSET is finished. Gives the place before which all are.
  uint64_t end(uint64_t offset) {
    const std::lock_guard lock(mutex_);
    open_.erase(offset);
    return open_.empty() ? next_ : *open_.begin();
  }

 private:
  std::mutex mutex_;
  std::set<uint64_t> open_;  // pieces by their offset
  uint64_t next_;
};

}  // namespace cairn
