#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "async/runtime.h"
#include "async/thread.h"
#include "base/error.h"

namespace cairn {

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
      if (idle_ < jobs_.size() && threads_.size() < most_) add_thread();
    }
    changed_.notify_one();
  }

 private:
  // Where the system makes no more threads, those that are there do the work.
  void add_thread() {
    try {
      threads_.push_back(start_thread("cairn-pool", [this] { serve(); }));
    } catch (const Error&) {
      if (!threads_.empty()) return;
      jobs_.pop_back();
      throw;
    }
  }
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

Pool::Pool(unsigned most_threads) : impl_(std::make_unique<Impl>(most_threads)) {}
Pool::~Pool() = default;
void Pool::submit(std::function<void()> job) { impl_->submit(std::move(job)); }

}  // namespace cairn
