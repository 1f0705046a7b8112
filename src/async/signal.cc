#include "async/signal.h"

#include <utility>

#include "async/runtime.h"

namespace cairn {

bool Signal::Awaiter::await_suspend(std::coroutine_handle<> handle) {
  const std::lock_guard lock(signal_->mutex_);
  if (signal_->count_ != seen_) return false;
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  signal_->waiters_.push(&waiter_);
  return true;
}

uint64_t Signal::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

void Signal::notify() {
  detail::WaiterQueue woken;
  {
    const std::lock_guard lock(mutex_);
    ++count_;
    woken = std::exchange(waiters_, {});
  }
  // A waiter is gone as soon as it was posted.
  while (!woken.empty()) {
    detail::Waiter* waiter = woken.pop();
    waiter->worker->post(waiter->handle);
  }
}

}  // namespace cairn
