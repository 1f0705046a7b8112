#include "protocol/gluster/errand.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "async/thread.h"

namespace cairn::gluster {
namespace {

// How often deadlines and cancellation are checked.
constexpr auto kMoment = std::chrono::milliseconds(100);

}  // namespace

void Errand::settle(ssize_t result, int error) {
  if (over_.exchange(true)) return;
  result_ = result;
  error_ = result < 0 && error == 0 ? EIO : error;
  // Afterwards who waited may be gone, and this with it.
  Worker* worker = worker_;
  worker->post(handle_);
}

struct Watch::Waiting {
  Watch& watch;
  const ErrandPtr& errand;
  const Start& start;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    const ErrandPtr mine = errand;
    // What waits may be resumed, and gone, as soon as the library has the errand.
    const Start begin = start;
    mine->worker_ = Worker::current();
    mine->handle_ = handle;
    watch.add(mine);
    auto data = std::make_unique<ErrandPtr>(mine);
    const int result = begin(data.get());
    const int error = errno;
    if (result < 0)
      mine->settle(result, error);
    else
      // answer() has it, or will.
      data.release();
  }
  void await_resume() const noexcept {}
};

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Task<void> Watch::send(ErrandPtr errand, Start start, std::chrono::seconds most,
                       const CancelSource* cancel) {
  errand->deadline_ = std::chrono::steady_clock::now() + most;
  errand->cancel_ = cancel;
  co_await Waiting{*this, errand, start};
}

Task<void> Watch::call(ErrandPtr errand, std::function<ssize_t()> work, std::chrono::seconds most,
                       const CancelSource* cancel) {
  const Start start = [work = std::move(work)](void* data) {
    start_thread("cairn-gluster", [work, data] {
      errno = 0;
      const ssize_t result = work();
      answer(data, result, errno);
    }).detach();
    return 0;
  };
  co_await send(std::move(errand), start, most, cancel);
}

void Watch::answer(void* data, ssize_t result, int error) {
  const std::unique_ptr<ErrandPtr> errand(static_cast<ErrandPtr*>(data));
  (*errand)->settle(result, error);
}

void Watch::add(const ErrandPtr& errand) {
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable()) thread_ = start_thread("cairn-watch", [this] { work(); });
  // Those that are over go here as well, where many come between two looks.
  if (errands_.size() % 64 == 63)
    std::erase_if(errands_, [](const ErrandPtr& each) { return each->over_.load(); });
  errands_.push_back(errand);
  if (errands_.size() == 1) changed_.notify_all();
}

void Watch::work() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    if (errands_.empty())
      changed_.wait(lock, [this] { return over_ || !errands_.empty(); });
    else
      changed_.wait_for(lock, kMoment, [this] { return over_; });
    const auto now = std::chrono::steady_clock::now();
    std::erase_if(errands_, [now](const ErrandPtr& each) {
      if (each->over_) return true;
      if (each->cancel_ != nullptr && each->cancel_->requested())
        each->settle(-1, ECANCELED);
      else if (each->deadline_ <= now)
        each->settle(-1, ETIMEDOUT);
      return each->over_.load();
    });
  }
}

}  // namespace cairn::gluster
