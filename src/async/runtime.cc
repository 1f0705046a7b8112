#include "async/runtime.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "async/detached.h"
#include "async/engine.h"
#include "async/frame_limit.h"
#include "async/thread.h"
#include "base/bell.h"
#include "base/error.h"
#include "platform/poll.h"
#include "platform/thread.h"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;

thread_local Worker* current_worker = nullptr;

// Between two looks at the outside world a worker resumes at most this many coroutines.
constexpr size_t kBurst = 256;
// One that lets all others go first waits so long for them.
constexpr auto kPatience = std::chrono::milliseconds(2);

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

  Impl(Runtime& runtime, std::optional<unsigned> index, EngineKind engine)
      : runtime_(runtime), index_(index), engine_kind_(engine) {}

  IoEngine& engine() {
    if (!engine_) {
      if (engine_kind_ != EngineKind::kThreads) engine_ = make_uring_engine(bell_.descriptor());
      if (!engine_) engine_ = make_thread_engine();
    }
    return *engine_;
  }

  void post_local(std::coroutine_handle<> handle) { ready_.push_back(handle); }
  void post_patient(std::coroutine_handle<> handle) { patient_.push_back(handle); }
  void post_remote(std::coroutine_handle<> handle) {
    bool wake = false;
    {
      std::lock_guard lock(inbox_mutex_);
      inbox_.push_back(handle);
      wake = std::exchange(sleeping_, false);
    }
    if (wake) bell_.ring();
  }
  void request_stop() {
    {
      std::lock_guard lock(inbox_mutex_);
      stop_ = true;
      sleeping_ = false;
    }
    bell_.ring();
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
      const bool idle = ready_.empty() && patient_.empty();
      if (idle || !fd_waits_.empty()) sleep(idle);
      admit_patient();
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
  const std::optional<unsigned> index_;  // none: a guest
  const EngineKind engine_kind_;
  bool first_guest_ = false;  // one of those that have rings
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
  // One at a time: then it is looked again at what has come.
  void admit_patient() {
    if (patient_.empty()) return;
    const auto now = Clock::now();
    if (!ready_.empty() && now < patience_end_) return;
    patience_end_ = now + kPatience;
    ready_.push_back(patient_.front());
    patient_.pop_front();
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
    polled_.push_back({bell_.descriptor(), POLLIN, 0});
    for (const FdWait* wait : fd_waits_) {
      polled_.push_back({wait->fd, wait->events, 0});
      first = std::min(first, wait->deadline);
    }
    if (idle && first != Clock::time_point::max()) {
      const auto left = first - Clock::now();
      timeout = static_cast<int>(std::clamp<int64_t>(
          std::chrono::ceil<std::chrono::milliseconds>(left).count(), 0, 1 << 30));
    }
    const int count = platform::poll(polled_, timeout);
    {
      std::lock_guard lock(inbox_mutex_);
      sleeping_ = false;
    }
    const bool late = first != Clock::time_point::max() && Clock::now() >= first;
    if (count <= 0 && !late) return;
    if (count > 0 && polled_[0].revents != 0) bell_.clear();
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

  Bell bell_;  // goes after the engine, which rings it
  std::deque<std::coroutine_handle<>> ready_;
  std::deque<std::coroutine_handle<>> patient_;  // resumed when nothing is ready
  Clock::time_point patience_end_;
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
std::optional<unsigned> Worker::resident_index() const { return impl_->index_; }
IoEngine& Worker::io() { return impl_->engine(); }
void Worker::post(std::coroutine_handle<> handle) {
  if (current_worker == this)
    impl_->post_local(handle);
  else
    impl_->post_remote(handle);
}

// --- Runtime ---

namespace {

// A ring costs memory of the kernel: so many guests have one. The others, of which there are some
// when more threads are here at once, leave to the pool what does not end at once.
constexpr size_t kGuestRings = 8;

// How often this process was forked off another since its first Runtime.
std::atomic<unsigned> forks{0};
constexpr unsigned kNever = UINT_MAX;

void count_forks() {
  static std::once_flag once;
  std::call_once(once, [] { platform::at_fork_in_child([] { forks.fetch_add(1); }); });
}

}  // namespace

class Runtime::Impl {
 public:
  // Before everything else: where threads are missing, locks may be held for ever.
  void check_process() {
    const unsigned now = forks.load(std::memory_order_relaxed);
    unsigned first = first_use.load(std::memory_order_relaxed);
    if (first == now) return;
    if (first == kNever && first_use.compare_exchange_strong(first, now)) return;
    if (first != now)
      throw Error(ErrorKind::kForked, "this process was forked after its images were opened")
          .hint("Open them after the fork, or start another program instead.");
  }
  bool forked() const {
    const unsigned first = first_use.load();
    return first != kNever && first != forks.load();
  }

  // A guest for the calling thread. It lasts as long as the Runtime: who has posted to it may still
  // be at its bell when the call that it was lent to has ended.
  Worker& borrow_guest(Runtime& runtime) {
    if (Worker* spare = spare_guest.exchange(nullptr, std::memory_order_acquire)) return *spare;
    const std::lock_guard lock(mutex);
    auto& idle = idle_first.empty() ? idle_others : idle_first;
    if (idle.empty()) {
      const bool first = guests.size() < kGuestRings;
      (first ? idle_first : idle_others).reserve(guests.size() + 1);
      guests.push_back(std::make_unique<Worker>(std::make_unique<Worker::Impl>(
          runtime, std::nullopt, first ? engine : EngineKind::kThreads)));
      if (first) guests.back()->impl().first_guest_ = true;
      return *guests.back();
    }
    Worker& guest = *idle.back();
    idle.pop_back();
    return guest;
  }
  void give_back(Worker& guest) {
    Worker* none = nullptr;
    if (guest.impl().first_guest_ &&
        spare_guest.compare_exchange_strong(none, &guest, std::memory_order_release,
                                            std::memory_order_relaxed))
      return;
    const std::lock_guard lock(mutex);
    (guest.impl().first_guest_ ? idle_first : idle_others).push_back(&guest);
  }

  std::mutex mutex;
  EngineKind engine = EngineKind::kAuto;
  std::vector<std::unique_ptr<Worker>> residents;  // null: not yet needed
  std::vector<std::unique_ptr<Worker>> guests;
  std::vector<Worker*> idle_first, idle_others;  // guests that nobody has; the first have rings
  std::atomic<Worker*> spare_guest{nullptr};     // one of the first that is idle: a short way
  std::unique_ptr<Pool> pool;
  unsigned pool_threads = 0;
  std::atomic<unsigned> turns{0};           // of next_worker()
  std::atomic<unsigned> first_use{kNever};  // forks before it
};

Runtime::Runtime(RuntimeOptions options) : impl_(std::make_unique<Impl>()) {
  count_forks();
  impl_->engine = options.engine;
  impl_->pool_threads = options.pool_threads != 0
                            ? options.pool_threads
                            : std::max(4u, std::thread::hardware_concurrency());
  impl_->residents.resize(std::max(options.workers, 1u));
}

Runtime::~Runtime() {
  if (impl_->forked()) {
    // There is nobody to wait for, and what they have worked at may be half done.
    [[maybe_unused]] Impl* const left = impl_.release();
    return;
  }
  // The pool first: its jobs post to workers that must still be there.
  impl_->pool.reset();
  for (auto& worker : impl_->residents) {
    if (!worker) continue;
    worker->impl().request_stop();
    worker->impl().thread_.join();
  }
}

unsigned Runtime::worker_count() const { return static_cast<unsigned>(impl_->residents.size()); }

void Runtime::set_engine(EngineKind engine) {
  const std::lock_guard lock(impl_->mutex);
  impl_->engine = engine;
}

Worker& Runtime::worker(unsigned index) {
  impl_->check_process();
  const std::lock_guard lock(impl_->mutex);
  std::unique_ptr<Worker>& place = impl_->residents.at(index);
  if (place) return *place;
  auto made = std::make_unique<Worker>(std::make_unique<Worker::Impl>(*this, index, impl_->engine));
  Worker& worker = *made;
  worker.impl().thread_ = start_thread("cairn-" + std::to_string(index), [&worker] {
    detail::keep_many_frames();
    current_worker = &worker;
    worker.impl().loop([&worker] { return worker.impl().stopping(); });
    current_worker = nullptr;
  });
  place = std::move(made);
  return worker;
}

Worker& Runtime::next_worker() {
  return worker(impl_->turns.fetch_add(1, std::memory_order_relaxed) % worker_count());
}

Worker& Worker::home() { return impl_->index_ ? *this : impl_->runtime_.next_worker(); }

Pool& Runtime::pool() {
  impl_->check_process();
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->pool) impl_->pool = std::make_unique<Pool>(impl_->pool_threads);
  return *impl_->pool;
}

void Runtime::run_root(Task<void> task) {
  impl_->check_process();
  Worker& guest = impl_->borrow_guest(*this);
  Worker* before = std::exchange(current_worker, &guest);
  bool done = false;
  [](Task<void> work, bool& ended) -> detail::Detached {
    co_await work;
    ended = true;
  }(std::move(task), done);
  guest.impl().loop([&done] { return done; });
  current_worker = before;
  impl_->give_back(guest);
}

void spawn_detached(Task<void> task) {
  [](Task<void> work) -> detail::Detached { co_await work; }(std::move(task));
}

void spawn_detached_on(Worker& worker, Task<void> task) {
  [](Worker& there, Task<void> work) -> detail::Detached {
    co_await detail::HopAwaiter{&there};
    co_await work;
  }(worker, std::move(task));
}

// --- waiting ---

namespace {

struct YieldAwaiter {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const { Worker::current()->post(handle); }
  void await_resume() const noexcept {}
};

struct PatientAwaiter {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const {
    Worker::current()->impl().post_patient(handle);
  }
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
Task<void> yield_to_all() { co_await PatientAwaiter{}; }

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
