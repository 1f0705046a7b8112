#pragma once

#include <coroutine>
#include <cstdint>
#include <mutex>

#include "async/sync.h"

namespace cairn {

// Wakes coroutines when something that they look at may have changed. Who waits notes the number of
// notices first, looks, and then waits for another one: none that comes in between is missed.
//
//   while (true) {
//     const uint64_t seen = signal.count();
//     if (…) break;
//     co_await signal.next(seen);
//   }
//
// From any worker; what waits is resumed on its own one.
class Signal {
 public:
  class Awaiter {
   public:
    Awaiter(Signal* signal, uint64_t seen) : signal_(signal), seen_(seen) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle);
    void await_resume() const noexcept {}

   private:
    Signal* signal_;
    uint64_t seen_;
    detail::Waiter waiter_;
  };

  // How many notices there were.
  uint64_t count() const;
  // Waits until there were more than SEEN.
  Awaiter next(uint64_t seen) { return Awaiter(this, seen); }
  // Wakes all that wait. From any thread.
  void notify();

 private:
  mutable std::mutex mutex_;
  uint64_t count_ = 0;
  detail::WaiterQueue waiters_;
};

}  // namespace cairn
