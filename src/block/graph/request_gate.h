#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "async/sync.h"

namespace cairn {

// Lets requests through until it is closed. From any worker.
class RequestGate {
 public:
  // What passed the gate and has not ended.
  class Passage {
   public:
    explicit Passage(RequestGate* gate) : gate_(gate) {}
    Passage(const Passage&) = delete;
    Passage(Passage&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    ~Passage() {
      if (gate_ != nullptr) gate_->leave();
    }

   private:
    RequestGate* gate_;
  };
  class Entrance {
   public:
    explicit Entrance(RequestGate* gate) : gate_(gate) {}
    bool await_ready() { return gate_->try_enter(); }
    bool await_suspend(std::coroutine_handle<> handle);
    Passage await_resume() { return Passage(gate_); }

   private:
    RequestGate* gate_;
    detail::Waiter waiter_;
  };
  class Quiet {
   public:
    explicit Quiet(RequestGate* gate) : gate_(gate) {}
    bool await_ready() { return gate_->state_.load(std::memory_order_acquire) == kClosed; }
    bool await_suspend(std::coroutine_handle<> handle);
    void await_resume() {}

   private:
    RequestGate* gate_;
    detail::Waiter waiter_;
  };

  // const auto passage = co_await gate.enter(); waits while the gate is closed.
  Entrance enter() { return Entrance(this); }
  // Nothing enters from now on. Each call needs its open().
  void close();
  // Waits until everything that had entered has ended. The gate is closed, and stays so meanwhile.
  Quiet quiet() { return Quiet(this); }
  void open();
  bool closed() const { return (state_.load(std::memory_order_acquire) & kClosed) != 0; }

 private:
  static constexpr uint64_t kClosed = uint64_t{1} << 63;
  bool try_enter();
  void leave();

  std::atomic<uint64_t> state_{0};  // kClosed, and how many are inside
  std::mutex mutex_;                // of what follows
  unsigned closings_ = 0;
  detail::WaiterQueue entering_;
  detail::WaiterQueue until_quiet_;
};

}  // namespace cairn
