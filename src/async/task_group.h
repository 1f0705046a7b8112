#pragma once

#include <atomic>
#include <coroutine>
#include <exception>

#include "async/runtime.h"
#include "async/task.h"

namespace cairn {

// Tasks that run side by side and are waited for together. join() must be awaited before the group
// is destroyed, also when an exception is on its way.
class TaskGroup {
 public:
  TaskGroup() = default;
  TaskGroup(const TaskGroup&) = delete;
  ~TaskGroup();

  // Starts TASK at once on the current worker; it runs until it first suspends.
  void spawn(Task<void> task);
  // Starts TASK on WORKER.
  void spawn_on(Worker& worker, Task<void> task);

  // Waits, on the worker that made the group, until all tasks have ended; throws the first error of
  // one of them, rather one that says where it waited than that the work was cancelled.
  Task<void> join();
  // True as soon as one task has failed: long loops look at it to stop early.
  bool failed() const;

 private:
  void finished(std::exception_ptr error);
  struct JoinAwaiter;
  // All but failed_ belong to the worker that made the group.
  unsigned pending_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  Worker* home_ = nullptr;
  std::coroutine_handle<> waiter_;
};

}  // namespace cairn
