#include "async/runtime.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "async/detached.h"
#include "async/engine.h"
#include "base/error.h"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;

thread_local Worker* current_worker = nullptr;

// Between two looks at the outside world a worker resumes at most this many coroutines.
constexpr size_t kBurst = 256;

}  // namespace

// --- Worker ---

class Worker::Impl {
 public:
  struct FdWait {
    int fd;
    short events;
    short ready = 0;
    Clock::time_point deadline = Clock::time_point::max();
    std::coroutine_handle<> handle;
  };

  Impl(Runtime& runtime, unsigned index, EngineKind engine)
      : runtime_(runtime), index_(index), engine_kind_(engine) {
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) throw Error::system(errno, "eventfd");
  }
  ~Impl() {
    engine_.reset();
    ::close(wake_fd_);
  }

  IoEngine& engine() {
    if (!engine_) {
      if (engine_kind_ != EngineKind::kThreads) engine_ = make_uring_engine(wake_fd_);
      if (!engine_) engine_ = make_thread_engine();
    }
    return *engine_;
  }

  void post_local(std::coroutine_handle<> handle) { ready_.push_back(handle); }
  void post_remote(std::coroutine_handle<> handle) {
    bool wake = false;
    {
      std::lock_guard lock(inbox_mutex_);
      inbox_.push_back(handle);
      wake = std::exchange(sleeping_, false);
    }
    if (wake) ring_bell();
  }
  void ring_bell() const {
    const uint64_t one = 1;
    // The counter can only refuse when it is already set.
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
  }
  void request_stop() {
    {
      std::lock_guard lock(inbox_mutex_);
      stop_ = true;
      sleeping_ = false;
    }
    ring_bell();
  }

  template <class Done>
  void loop(Done done) {
    while (!done()) {
      for (size_t n = 0; n < kBurst && !ready_.empty() && !done(); ++n) {
        const std::coroutine_handle<> handle = ready_.front();
        ready_.pop_front();
        handle.resume();
      }
      if (done()) return;
      take_inbox();
      fire_timers();
      if (engine_) engine_->poll();
      const bool idle = ready_.empty();
      if (!idle && fd_waits_.empty()) continue;
      sleep(idle);
    }
  }
  // Of one that was not yet resumed.
  void end_sleep(std::coroutine_handle<> sleeper) {
    const auto found = std::find_if(timers_.begin(), timers_.end(),
                                    [&](const auto& one) { return one.second == sleeper; });
    if (found == timers_.end()) return;
    ready_.push_back(found->second);
    timers_.erase(found);
  }
  void wake_waits(int fd) {
    std::erase_if(fd_waits_, [this, fd](FdWait* wait) {
      if (wait->fd != fd) return false;
      wait->ready = POLLHUP;
      ready_.push_back(wait->handle);
      return true;
    });
  }
  bool stopping() {
    std::lock_guard lock(inbox_mutex_);
    return stop_;
  }

  Runtime& runtime_;
  unsigned index_;
  EngineKind engine_kind_;
  std::multimap<Clock::time_point, std::coroutine_handle<>> timers_;
  std::vector<FdWait*> fd_waits_;
  std::thread thread_;

 private:
  void take_inbox() {
    std::lock_guard lock(inbox_mutex_);
    ready_.insert(ready_.end(), inbox_.begin(), inbox_.end());
    inbox_.clear();
  }
  void fire_timers() {
    if (timers_.empty()) return;
    const auto now = Clock::now();
    while (!timers_.empty() && timers_.begin()->first <= now) {
      ready_.push_back(timers_.begin()->second);
      timers_.erase(timers_.begin());
    }
  }
  void sleep(bool idle) {
    int timeout = idle ? -1 : 0;
    if (idle) {
      std::lock_guard lock(inbox_mutex_);
      if (!inbox_.empty() || stop_) return;
      sleeping_ = true;
    }
    auto first = Clock::time_point::max();
    if (!timers_.empty()) first = timers_.begin()->first;
    polled_.clear();
    polled_.push_back({wake_fd_, POLLIN, 0});
    for (const FdWait* wait : fd_waits_) {
      polled_.push_back({wait->fd, wait->events, 0});
      first = std::min(first, wait->deadline);
    }
    if (idle && first != Clock::time_point::max()) {
      const auto left = first - Clock::now();
      timeout = static_cast<int>(std::clamp<int64_t>(
          std::chrono::ceil<std::chrono::milliseconds>(left).count(), 0, 1 << 30));
    }
    const int count = ::poll(polled_.data(), polled_.size(), timeout);
    {
      std::lock_guard lock(inbox_mutex_);
      sleeping_ = false;
    }
    const bool late = first != Clock::time_point::max() && Clock::now() >= first;
    if (count <= 0 && !late) return;
    if (count > 0 && polled_[0].revents != 0) {
      uint64_t rings = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_fd_, &rings, sizeof rings);
    }
    size_t kept = 0;
    for (size_t i = 0; i < fd_waits_.size(); ++i) {
      FdWait* wait = fd_waits_[i];
      const short ready = count > 0 ? polled_[i + 1].revents : short{0};
      if (ready == 0 && !(late && wait->deadline <= Clock::now())) {
        fd_waits_[kept++] = wait;
        continue;
      }
      wait->ready = ready;
      ready_.push_back(wait->handle);
    }
    fd_waits_.resize(kept);
  }

  int wake_fd_ = -1;
  std::deque<std::coroutine_handle<>> ready_;
  std::vector<pollfd> polled_;
  std::unique_ptr<IoEngine> engine_;
  std::mutex inbox_mutex_;
  std::vector<std::coroutine_handle<>> inbox_;
  bool sleeping_ = false;
  bool stop_ = false;
};

Worker::Worker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Worker::~Worker() = default;
Worker* Worker::current() { return current_worker; }
Runtime& Worker::runtime() const { return impl_->runtime_; }
unsigned Worker::index() const { return impl_->index_; }
IoEngine& Worker::io() { return impl_->engine(); }
void Worker::post(std::coroutine_handle<> handle) {
  if (current_worker == this)
    impl_->post_local(handle);
  else
    impl_->post_remote(handle);
}

// --- Pool ---

class Pool::Impl {
 public:
  explicit Impl(unsigned most) : most_(most) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void submit(std::function<void()> job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
      if (idle_ < jobs_.size() && threads_.size() < most_)
        threads_.emplace_back([this] { serve(); });
    }
    changed_.notify_one();
  }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      --idle_;
      if (jobs_.empty()) return;
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }
  unsigned most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stop_ = false;
};

Pool::Pool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pool::~Pool() = default;
void Pool::submit(std::function<void()> job) { impl_->submit(std::move(job)); }

// --- Runtime ---

class Runtime::Impl {
 public:
  std::mutex mutex;
  EngineKind engine = EngineKind::kAuto;
  std::vector<std::unique_ptr<Worker>> workers;
  std::unique_ptr<Pool> pool;
  unsigned pool_threads = 0;
};

Runtime::Runtime(RuntimeOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->engine = options.engine;
  if (options.engine == EngineKind::kAuto) {
    const char* wish = std::getenv("CAIRN_ENGINE");
    if (wish != nullptr && std::strcmp(wish, "threads") == 0) impl_->engine = EngineKind::kThreads;
    if (wish != nullptr && std::strcmp(wish, "uring") == 0) impl_->engine = EngineKind::kUring;
  }
  impl_->pool_threads = options.pool_threads != 0
                            ? options.pool_threads
                            : std::max(4u, std::thread::hardware_concurrency());
  for (unsigned i = 0; i < std::max(options.workers, 1u); ++i)
    impl_->workers.push_back(
        std::make_unique<Worker>(std::make_unique<Worker::Impl>(*this, i, impl_->engine)));
}

Runtime::~Runtime() {
  // The pool first: its jobs post to workers that must still be there.
  impl_->pool.reset();
  for (auto& worker : impl_->workers) {
    if (!worker->impl().thread_.joinable()) continue;
    worker->impl().request_stop();
    worker->impl().thread_.join();
  }
}

unsigned Runtime::worker_count() const { return static_cast<unsigned>(impl_->workers.size()); }

Worker& Runtime::worker(unsigned index) {
  Worker& worker = *impl_->workers.at(index);
  if (index != 0) {
    std::lock_guard lock(impl_->mutex);
    if (!worker.impl().thread_.joinable())
      worker.impl().thread_ = std::thread([&worker] {
        current_worker = &worker;
        worker.impl().loop([&worker] { return worker.impl().stopping(); });
        current_worker = nullptr;
      });
  }
  return worker;
}

Pool& Runtime::pool() {
  std::lock_guard lock(impl_->mutex);
  if (!impl_->pool)
    impl_->pool = std::make_unique<Pool>(std::make_unique<Pool::Impl>(impl_->pool_threads));
  return *impl_->pool;
}

void Runtime::run_root(Task<void> task) {
  Worker& worker = *impl_->workers.front();
  Worker* before = std::exchange(current_worker, &worker);
  bool done = false;
  [](Task<void> work, bool& ended) -> detail::Detached {
    co_await work;
    ended = true;
  }(std::move(task), done);
  worker.impl().loop([&done] { return done; });
  current_worker = before;
}

void spawn_detached(Task<void> task) {
  [](Task<void> work) -> detail::Detached { co_await work; }(std::move(task));
}

// --- waiting ---

namespace {

struct YieldAwaiter {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const { Worker::current()->post(handle); }
  void await_resume() const noexcept {}
};

struct SleepAwaiter {
  Clock::time_point until;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const {
    Worker::current()->impl().timers_.emplace(until, handle);
  }
  void await_resume() const noexcept {}
};

struct FdAwaiter {
  Worker::Impl::FdWait wait;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    wait.handle = handle;
    Worker::current()->impl().fd_waits_.push_back(&wait);
  }
  short await_resume() const noexcept { return wait.ready; }
};

}  // namespace

Task<void> yield_now() { co_await YieldAwaiter{}; }

Task<void> sleep_for(std::chrono::nanoseconds duration) {
  co_await SleepAwaiter{Clock::now() + duration};
}

struct Nap::Awaiter {
  Nap& nap;
  Clock::time_point until;
  bool await_ready() const noexcept { return nap.woken_; }
  void await_suspend(std::coroutine_handle<> handle) const {
    nap.sleeper_ = handle;
    Worker::current()->impl().timers_.emplace(until, handle);
  }
  void await_resume() const noexcept { nap.sleeper_ = nullptr; }
};

Task<void> Nap::sleep_for(std::chrono::nanoseconds duration) {
  co_await Awaiter{*this, Clock::now() + duration};
}

Task<void> Nap::wake() { return run_on(*home_, wake_here()); }

Task<void> Nap::wake_here() {
  woken_ = true;
  if (sleeper_) Worker::current()->impl().end_sleep(sleeper_);
  co_return;
}

Task<short> await_ready(int fd, short events, Clock::time_point deadline) {
  FdAwaiter awaiter{.wait = {.fd = fd, .events = events, .deadline = deadline, .handle = nullptr}};
  const short ready = co_await awaiter;
  co_return ready;
}

void wake_waits(int fd) { Worker::current()->impl().wake_waits(fd); }

}  // namespace cairn
