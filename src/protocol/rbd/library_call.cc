#include "protocol/rbd/library_call.h"

#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "async/runtime.h"
#include "async/thread.h"
#include "base/error.h"
#include "protocol/library_thread.h"

namespace cairn::rbd {
namespace {

// How often it is checked for a cancellation.
constexpr auto kMoment = std::chrono::milliseconds(100);

struct Call {
  std::function<void()> work;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::exception_ptr error;
};

void run(const std::shared_ptr<Call>& call) {
  std::exception_ptr error;
  try {
    call->work();
  } catch (...) {
    error = std::current_exception();
  }
  // What the work owned is freed by this thread: that may block too.
  call->work = nullptr;
  const std::lock_guard lock(call->mutex);
  call->error = error;
  call->done = true;
  call->changed.notify_all();
}

// A call made for a coroutine.
class Errand : public LibraryThread {
 public:
  Errand(std::function<void()> work, std::chrono::steady_clock::duration limit,
         const CancelSource* cancel)
      : LibraryThread("cairn-rbd-call", cancel), work_(std::move(work)), limit_(limit) {}
  ~Errand() override { stop(); }

 protected:
  void connect() override {
    call_library(std::move(work_), limit_, [this] { check_stop(); });
  }
  [[noreturn]] void serve() override { throw Error(ErrorKind::kCancelled, "done"); }
  void finish(const Error&, bool) override {}

 private:
  std::function<void()> work_;
  const std::chrono::steady_clock::duration limit_;
};

}  // namespace

void call_library(std::function<void()> work, std::chrono::steady_clock::duration limit,
                  const std::function<void()>& check) {
  const auto begun = std::chrono::steady_clock::now();
  const auto call = std::make_shared<Call>();
  call->work = std::move(work);
  start_thread("cairn-librbd", [call] { run(call); }).detach();
  std::unique_lock lock(call->mutex);
  while (!call->done) {
    call->changed.wait_for(lock, kMoment);
    if (call->done) break;
    try {
      check();
      if (std::chrono::steady_clock::now() - begun > limit)
        throw Error::system(ETIMEDOUT, "the Ceph cluster does not answer");
    } catch (...) {
      leave_library_behind();
      throw;
    }
  }
  if (call->error) std::rethrow_exception(call->error);
}

Task<void> library_call(std::function<void()> work, std::chrono::steady_clock::duration limit,
                        const CancelSource* cancel) {
  Errand errand(std::move(work), limit, cancel);
  co_await errand.open();
}

void leave_library_behind() {
  static std::once_flag once;
  std::call_once(once, [] {
    ::on_exit(
        [](int status, void*) {
          std::fflush(nullptr);
          ::_exit(status);
        },
        nullptr);
  });
}

}  // namespace cairn::rbd
