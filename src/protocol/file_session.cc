#include "protocol/file_session.h"

#include <utility>

#include "async/runtime.h"

namespace cairn {

struct FileSession::Doing {
  FileSession& session;
  FileOperation& operation;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    operation.worker = Worker::current();
    operation.handle = handle;
    const std::lock_guard lock(session.mutex_);
    if (session.over_) {
      operation.lost = true;
      operation.error = std::make_exception_ptr(*session.over_);
      return false;
    }
    session.load_ += operation.length();
    session.submitted_.push_back(&operation);
    session.wake();
    return true;
  }
  void await_resume() const noexcept {}
};

FileSession::FileSession(std::string name, const CancelSource* cancel)
    : LibraryThread(std::move(name), cancel) {}

FileSession::~FileSession() = default;

Task<void> FileSession::perform(FileOperation& operation) { co_await Doing{*this, operation}; }

void FileSession::take_work() {
  const std::lock_guard lock(mutex_);
  queue_.insert(queue_.end(), submitted_.begin(), submitted_.end());
  submitted_.clear();
}

void FileSession::finish_operation(FileOperation& operation) {
  load_ -= operation.length();
  resume(*operation.worker, operation.handle, operation.length());
}

void FileSession::end_work(const Error& why) {
  broken_.store(true, std::memory_order_release);
  {
    const std::lock_guard lock(mutex_);
    over_ = why;
  }
  take_work();
}

namespace {
// Opens SESSION, does OPERATION when there is one, and ends SESSION.
Task<void> in_session(FileSession& session, FileOperation* operation) {
  std::exception_ptr error;
  try {
    co_await session.open();
    if (operation != nullptr) {
      co_await session.perform(*operation);
      error = operation->error;
    }
  } catch (...) {
    error = std::current_exception();
  }
  co_await run_blocking([&session] { session.stop(); });
  if (error) std::rethrow_exception(error);
}
}  // namespace

Task<void> make_remote_file(FileSession& session, uint64_t size) {
  FileOperation operation = FileOperation::resize(size);
  co_await in_session(session, size != 0 ? &operation : nullptr);
}

Task<void> remove_remote_file(FileSession& session) {
  FileOperation operation = FileOperation::remove();
  co_await in_session(session, &operation);
}

}  // namespace cairn
