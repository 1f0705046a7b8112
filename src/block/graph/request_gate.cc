#include "block/graph/request_gate.h"

namespace cairn {
namespace {

// A waiter's frame may go as soon as it runs.
void wake_all(detail::WaiterQueue waiters) {
  while (!waiters.empty()) {
    detail::Waiter* waiter = waiters.pop();
    waiter->worker->post(waiter->handle);
  }
}

}  // namespace

bool RequestGate::try_enter() {
  uint64_t before = state_.load(std::memory_order_relaxed);
  while ((before & kClosed) == 0)
    if (state_.compare_exchange_weak(before, before + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void RequestGate::leave() {
  if (state_.fetch_sub(1, std::memory_order_acq_rel) != (kClosed | 1)) return;
  std::lock_guard lock(mutex_);
  if (state_.load(std::memory_order_acquire) == kClosed) wake_all(std::exchange(until_quiet_, {}));
}

bool RequestGate::Entrance::await_suspend(std::coroutine_handle<> handle) {
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  std::lock_guard lock(gate_->mutex_);
  if (gate_->try_enter()) return false;
  gate_->entering_.push(&waiter_);
  return true;
}

bool RequestGate::Quiet::await_suspend(std::coroutine_handle<> handle) {
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  std::lock_guard lock(gate_->mutex_);
  if (await_ready()) return false;
  gate_->until_quiet_.push(&waiter_);
  return true;
}

void RequestGate::close() {
  std::lock_guard lock(mutex_);
  if (closings_++ == 0) state_.fetch_or(kClosed, std::memory_order_acq_rel);
}

// Those that waited enter before anybody else can.
void RequestGate::open() {
  std::lock_guard lock(mutex_);
  if (--closings_ != 0) return;
  uint64_t waiting = 0;
  for (const detail::Waiter* at = entering_.head; at != nullptr; at = at->next) ++waiting;
  state_.fetch_add(waiting, std::memory_order_acq_rel);
  state_.fetch_and(~kClosed, std::memory_order_acq_rel);
  wake_all(std::exchange(entering_, {}));
}

}  // namespace cairn
