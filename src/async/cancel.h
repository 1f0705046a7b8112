#pragma once

#include <atomic>
#include <chrono>
#include <memory>

#include "base/bell.h"
#include "base/error.h"

namespace cairn {

// Cooperative cancellation: long work asks from time to time. request() may be called from any
// thread and from a signal handler.
class CancelSource {
 public:
  using Clock = std::chrono::steady_clock;

  CancelSource() = default;
  CancelSource(const CancelSource&) = delete;
  ~CancelSource() { delete bell_.load(); }
  void request() noexcept {
    Clock::rep never = 0;
    when_.compare_exchange_strong(never, Clock::now().time_since_epoch().count());
    cancelled_.store(true);
    if (const Bell* bell = bell_.load()) bell->ring();
  }
  bool requested() const noexcept { return cancelled_.load(std::memory_order_acquire); }
  // The moment of the first request; there must have been one.
  Clock::time_point requested_at() const noexcept {
    return Clock::time_point(Clock::duration(when_.load()));
  }
  // Throws kCancelled when cancellation was requested.
  void check() const {
    if (requested()) throw Error(ErrorKind::kCancelled, "cancelled");
  }
  // For who waits rather than asks: readable once cancellation was requested. Made by the first
  // call, from any thread. Throws what the system says.
  int descriptor() const {
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
  std::atomic<Clock::rep> when_{0};
  mutable std::atomic<Bell*> bell_{nullptr};
};

}  // namespace cairn
