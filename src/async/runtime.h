#pragma once

#include <chrono>
#include <coroutine>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "async/task.h"
#include "platform/poll.h"

namespace cairn {

class IoEngine;
class Pool;
class Runtime;

// An I/O engine and a ready queue. A coroutine that was started on a worker always resumes on it.
// A resident worker has a thread of its own. A guest has none: a thread that calls Runtime::run()
// works for it until that call ends. Nothing here but post(), home(), runtime() and
// resident_index() may be called from another thread.
class Worker {
 public:
  // The worker of the calling thread; null outside of one.
  static Worker* current();

  Runtime& runtime() const;
  // The number of a resident worker, below Runtime::worker_count(); a guest has none.
  std::optional<unsigned> resident_index() const;
  // Where work may go on after the call that started it has ended: this worker when it is resident,
  // else a resident one, each in turn. Starts its thread.
  Worker& home();
  // Queues HANDLE to be resumed by this worker.
  void post(std::coroutine_handle<> handle);
  IoEngine& io();

  class Impl;
  explicit Worker(std::unique_ptr<Impl> impl);
  ~Worker();
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

enum class EngineKind { kAuto, kUring, kThreads };

struct RuntimeOptions {
  unsigned workers = 1;  // resident ones
  // kAuto takes io_uring and falls back to threads where the kernel refuses it.
  EngineKind engine = EngineKind::kAuto;
  unsigned pool_threads = 0;  // 0: as many as there are processors, at least 4
};

// The workers and the pool. Threads and rings are made when first needed: a program that only
// looks at an image pays for none. Its threads block the signals that somebody else sends, so that
// those reach the threads of the program.
//
// Everything may be called from any thread. In a child that was forked after the first call, where
// the threads are missing, every call throws kForked, and the destructor leaves everything as it
// is.
class Runtime {
 public:
  explicit Runtime(RuntimeOptions options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // How many resident workers there are.
  unsigned worker_count() const;
  // A resident worker. Its thread is started by the first call that names it.
  Worker& worker(unsigned index);
  // The resident workers in turn.
  Worker& next_worker();
  Pool& pool();
  // The engine of workers that have not used theirs. Before other threads come in.
  void set_engine(EngineKind engine);

  // Runs TASK on the calling thread, with a guest worker, until it ends; returns its result or
  // throws what it threw. What TASK started on this worker must have ended by then: what is to live
  // on is started on Worker::home(). Not from within a coroutine.
  template <class T>
  T run(Task<T> task) {
    if constexpr (std::is_void_v<T>) {
      std::exception_ptr error;
      run_root(wrap(std::move(task), &error));
      if (error) std::rethrow_exception(error);
    } else {
      std::exception_ptr error;
      std::optional<T> result;
      run_root(wrap_value(std::move(task), &result, &error));
      if (error) std::rethrow_exception(error);
      return std::move(*result);
    }
  }

  class Impl;

 private:
  void run_root(Task<void> task);
  static Task<void> wrap(Task<void> task, std::exception_ptr* error) {
    try {
      co_await task;
    } catch (...) {
      *error = std::current_exception();
    }
  }
  template <class T>
  static Task<void> wrap_value(Task<T> task, std::optional<T>* result, std::exception_ptr* error) {
    try {
      result->emplace(co_await task);
    } catch (...) {
      *error = std::current_exception();
    }
  }
  std::unique_ptr<Impl> impl_;
};

// Starts TASK on the current worker and lets it go; it must catch its own errors. Prefer TaskGroup.
// Not on a guest, whose thread may leave before TASK has ended.
void spawn_detached(Task<void> task);
// Starts TASK on WORKER and lets it go.
void spawn_detached_on(Worker& worker, Task<void> task);

// Threads for work that burns CPU or blocks.
class Pool {
 public:
  explicit Pool(unsigned most_threads);
  // Waits for the jobs that were submitted.
  ~Pool();
  // Runs JOB on some pool thread. From any thread.
  void submit(std::function<void()> job);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

namespace detail {
// Moves the awaiting coroutine to WORKER.
struct HopAwaiter {
  Worker* worker;
  bool await_ready() const noexcept { return Worker::current() == worker; }
  void await_suspend(std::coroutine_handle<> handle) const { worker->post(handle); }
  void await_resume() const noexcept {}
};

template <class F>
class BlockingAwaiter {
 public:
  using Result = std::invoke_result_t<F&>;
  explicit BlockingAwaiter(F function) : function_(std::move(function)) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    Worker* home = Worker::current();
    home->runtime().pool().submit([this, home, handle] {
      try {
        if constexpr (std::is_void_v<Result>)
          function_();
        else
          result_.emplace(function_());
      } catch (...) {
        error_ = std::current_exception();
      }
      home->post(handle);
    });
  }
  Result await_resume() {
    if (error_) std::rethrow_exception(error_);
    if constexpr (!std::is_void_v<Result>) return std::move(*result_);
  }

 private:
  F function_;
  std::exception_ptr error_;
  std::optional<std::conditional_t<std::is_void_v<Result>, char, Result>> result_;
};
}  // namespace detail

// co_await run_blocking([&] { … }): runs the function on the pool and resumes here with its result.
// The lambda lives in the awaiting frame: capturing by reference is safe in the same expression.
template <class F>
auto run_blocking(F function) {
  return detail::BlockingAwaiter<F>(std::move(function));
}

// Runs TASK on WORKER and resumes on the caller's worker with its result.
template <class T>
Task<T> run_on(Worker& worker, Task<T> task) {
  Worker* home = Worker::current();
  std::exception_ptr error;
  co_await detail::HopAwaiter{&worker};
  if constexpr (std::is_void_v<T>) {
    try {
      co_await task;
    } catch (...) {
      error = std::current_exception();
    }
    co_await detail::HopAwaiter{home};
    if (error) std::rethrow_exception(error);
  } else {
    std::optional<T> result;
    try {
      result.emplace(co_await task);
    } catch (...) {
      error = std::current_exception();
    }
    co_await detail::HopAwaiter{home};
    if (error) std::rethrow_exception(error);
    co_return std::move(*result);
  }
}

// Lets other ready coroutines of this worker go first.
Task<void> yield_now();
// Lets everything else of this worker go first, also what comes from outside meanwhile; where that
// never ends it waits a few milliseconds. For work in the background that may not wait in between.
Task<void> yield_to_all();
Task<void> sleep_for(std::chrono::nanoseconds duration);
// A sleep that somebody else may end. Used by one coroutine, on one worker.
class Nap {
 public:
  // Of the worker on which it is made.
  Nap() : home_(Worker::current()) {}
  explicit Nap(Worker& worker) : home_(&worker) {}
  Nap(const Nap&) = delete;
  // Returns at once when wake() was called before.
  Task<void> sleep_for(std::chrono::nanoseconds duration);
  // No sleep lasts from now on. From any worker.
  Task<void> wake();
  // On the worker of the sleeper.
  bool woken() const { return woken_; }

 private:
  struct Awaiter;
  Task<void> wake_here();
  Worker* home_;
  std::coroutine_handle<> sleeper_;
  bool woken_ = false;
};
// Resumes when the descriptor has one of EVENTS (POLLIN, POLLOUT, …); gives the events that are
// there. POLLERR and POLLHUP always count. Gives 0 when DEADLINE has passed before.
Task<short> await_ready(
    int fd, short events,
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max());

// Resumes who waits on this worker for the descriptor, as if it had hung up.
void wake_waits(int fd);

}  // namespace cairn
