#pragma once

#include <atomic>
#include <memory>

#include "base/bell.h"
#include "base/error.h"

namespace cairn {

// Cooperative cancellation: long work asks from time to time. request() may be called from any
// thread and from a signal handler.
class CancelSource {
 public:
  CancelSource() = default;
  CancelSource(const CancelSource&) = delete;
  ~CancelSource() { delete bell_.load(); }
  void request() noexcept {
    cancelled_.store(true);
    if (const Bell* bell = bell_.load()) bell->ring();
  }
  bool requested() const noexcept { return cancelled_.load(std::memory_order_relaxed); }
  // Throws kCancelled when cancellation was requested.
  void check() const {
    if (requested()) throw Error(ErrorKind::kCancelled, "cancelled");
  }
  // For who waits rather than asks: readable once cancellation was requested. Made by the first
  // call, from any thread. Throws what the system says.
  int descriptor() {
    Bell* bell = bell_.load();
    if (bell == nullptr) {
      auto made = std::make_unique<Bell>();
      if (bell_.compare_exchange_strong(bell, made.get())) bell = made.release();
      if (requested()) bell->ring();
    }
    return bell->descriptor();
  }

 private:
  std::atomic<bool> cancelled_{false};
  std::atomic<Bell*> bell_{nullptr};
};

}  // namespace cairn
