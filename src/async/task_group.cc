#include "async/task_group.h"

#include <cassert>

#include "async/cancelled.h"
#include "async/detached.h"

namespace cairn {
namespace {

bool says_little(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return says_only_cancelled(error);
  } catch (...) {
    return false;
  }
}

}  // namespace

TaskGroup::~TaskGroup() { assert(pending_ == 0); }

void TaskGroup::spawn(Task<void> task) { spawn_on(*Worker::current(), std::move(task)); }

void TaskGroup::spawn_on(Worker& worker, Task<void> task) {
  home_ = Worker::current();
  ++pending_;
  [](TaskGroup& self, Worker& there, Task<void> work) -> detail::Detached {
    std::exception_ptr error;
    try {
      co_await run_on(there, std::move(work));
    } catch (...) {
      error = std::current_exception();
    }
    // run_on came back to the home worker: the group's state is touched there alone.
    self.finished(error);
  }(*this, worker, std::move(task));
}

void TaskGroup::finished(std::exception_ptr error) {
  if (error && (!error_ || says_little(error_))) {
    error_ = error;
    failed_.store(true, std::memory_order_relaxed);
  }
  if (--pending_ == 0 && waiter_) home_->post(std::exchange(waiter_, nullptr));
}

struct TaskGroup::JoinAwaiter {
  TaskGroup& group;
  bool await_ready() const noexcept { return group.pending_ == 0; }
  void await_suspend(std::coroutine_handle<> handle) noexcept { group.waiter_ = handle; }
  void await_resume() const noexcept {}
};

Task<void> TaskGroup::join() {
  co_await JoinAwaiter{*this};
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

bool TaskGroup::failed() const { return failed_.load(std::memory_order_relaxed); }

}  // namespace cairn
