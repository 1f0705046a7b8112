#pragma once

#include <atomic>
#include <memory>

#include "base/error.h"

namespace cairn {

// Cooperative cancellation: long work asks from time to time. request() may be called from any
// thread and from a signal handler.
class CancelSource {
 public:
  void request() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  bool requested() const noexcept { return cancelled_.load(std::memory_order_relaxed); }
  // Throws kCancelled when cancellation was requested.
  void check() const {
    if (requested()) throw Error(ErrorKind::kCancelled, "cancelled");
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace cairn
