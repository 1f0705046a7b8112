#include "protocol/library_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "async/thread.h"

namespace cairn {
namespace {

// Others go on with so many bytes while the thread takes the next ones.
constexpr size_t kManyBytes = 64 << 10;

}  // namespace

struct LibraryThread::Opening {
  LibraryThread& thread;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    thread.opener_ = Worker::current();
    thread.handle_ = handle;
    LibraryThread* self = &thread;
    thread.thread_ = start_thread(thread.name_, [self] { self->work(); });
  }
  void await_resume() const {
    if (thread.error_) std::rethrow_exception(thread.error_);
  }
};

LibraryThread::LibraryThread(std::string name, const CancelSource* cancel)
    : name_(std::move(name)), cancel_(cancel), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) throw Error::system(errno, "eventfd");
}

LibraryThread::~LibraryThread() = default;

Task<void> LibraryThread::open() { co_await Opening{*this}; }

void LibraryThread::stop() {
  stopping_ = true;
  wake();
  if (thread_.joinable()) thread_.join();
}

void LibraryThread::wake() {
  // Many hand over something between two looks of the thread: one of them makes the call.
  if (awake_.exchange(true)) return;
  const uint64_t one = 1;
  // The counter can only refuse when it is set.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void LibraryThread::take_wake() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  // After the read: who writes from now on wakes the thread once more.
  awake_.exchange(false);
}

void LibraryThread::resume(Worker& worker, std::coroutine_handle<> handle, size_t length) {
  if (ending_ || length >= kManyBytes)
    worker.post(handle);
  else
    answered_.emplace_back(&worker, handle);
}

void LibraryThread::resume_all() {
  for (const auto& [worker, handle] : answered_) worker->post(handle);
  answered_.clear();
}

void LibraryThread::check_stop() const {
  if (stopping_) throw Error(ErrorKind::kCancelled, "the disk was closed");
  if (cancel_ != nullptr && cancel_->requested()) throw Error(ErrorKind::kCancelled, "cancelled");
}

void LibraryThread::work() {
  try {
    connect();
  } catch (...) {
    error_ = std::current_exception();
  }
  const bool connected = !error_;
  // What opens may continue, and end this thread.
  opener_->post(handle_);
  Error why(ErrorKind::kIo, "the connection could not be opened");
  if (connected) {
    try {
      serve();
    } catch (const Error& error) {
      why = error;
    }
  }
  ending_ = true;
  resume_all();
  finish(why, connected);
}

}  // namespace cairn
