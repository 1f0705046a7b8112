#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "async/task.h"
#include "base/error.h"
#include "base/own_fd.h"

namespace cairn {

class CancelSource;
class Worker;

// A thread of its own for a library whose objects no two threads may touch: a connection to a
// server. It opens the connection, then serves until stop() is called, the work is cancelled, or
// the connection is lost. Workers hand over what is to be done, call wake(), and are resumed on
// their own threads.
class LibraryThread {
 public:
  // NAME is the thread's, 15 bytes at most. CANCEL, when not null, is checked by check_stop().
  LibraryThread(std::string name, const CancelSource* cancel);
  LibraryThread(const LibraryThread&) = delete;
  // The derived class has called stop().
  virtual ~LibraryThread();

  // Starts the thread; returns when the connection is open. Throws what connect() threw. Once.
  Task<void> open();
  // Ends the thread. From any other one; blocks, briefly.
  void stop();

 protected:
  using Clock = std::chrono::steady_clock;

  // Called on the thread, in this order; serve() only after a connect() that did not throw, and
  // ends by throwing. finish() gets the reason: it fails what waits, and frees everything.
  virtual void connect() = 0;
  [[noreturn]] virtual void serve() = 0;
  virtual void finish(const Error& why, bool connected) = 0;

  // Makes wake_fd() readable, if it is not. From any thread.
  void wake();
  int wake_fd() const { return wake_.get(); }
  // Makes it unreadable again. What was handed over before a wake() is looked for afterwards.
  void take_wake();
  // Resumes HANDLE on WORKER: at once after LENGTH bytes that are many, else with the next
  // resume_all(). A worker that is woken for each short answer costs more than the answers. Called
  // on the thread.
  void resume(Worker& worker, std::coroutine_handle<> handle, size_t length);
  // Called before the thread waits. From finish() on nothing waits for it.
  void resume_all();
  // Throws kCancelled when the thread is to end.
  void check_stop() const;

 private:
  struct Opening;
  void work();

  const std::string name_;
  const CancelSource* cancel_;
  OwnFd wake_;
  std::atomic<bool> awake_{false};  // wake_ was written, or is about to be
  std::atomic<bool> stopping_{false};
  std::vector<std::pair<Worker*, std::coroutine_handle<>>> answered_;  // the thread's own
  bool ending_ = false;                                                // of the thread too
  std::thread thread_;
  std::exception_ptr error_;
  Worker* opener_ = nullptr;
  std::coroutine_handle<> handle_;
};

}  // namespace cairn
