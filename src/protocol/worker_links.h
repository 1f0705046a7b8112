#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "async/runtime.h"
#include "async/task.h"

namespace cairn {

// The links of a disk to its server: each resident worker has its own, where the server allows
// that; all others, such as those of guests, use that of the home worker. A LinkClass is a
// RepairedLink with open() and perform().
template <class LinkClass>
class WorkerLinks {
 public:
  using Maker = std::function<std::unique_ptr<LinkClass>(Worker&)>;

  explicit WorkerLinks(Maker make) : make_(std::move(make)) {}

  // Opens the link of the home worker, that of the caller. Throws; close() is to be awaited also
  // then.
  Task<void> open(Runtime& runtime) {
    home_ = &Worker::current()->home();
    const unsigned own = home_->resident_index().value();
    links_.resize(std::max<size_t>(std::min<size_t>(runtime.worker_count(), kMostLinks), own + 1));
    links_[own] = make_(*home_);
    main_ = links_[own].get();
    co_await run_on(*home_, main_->open());
  }

  // From here on the other resident workers have links as well, which connect when they are first
  // used.
  void add_others(Runtime& runtime) {
    for (unsigned i = 0; i < links_.size(); ++i)
      if (!links_[i]) links_[i] = make_(runtime.worker(i));
    several_ = true;
  }

  // Performs OPERATION by the link of this worker. Throws as the link. From any worker.
  template <class OperationClass>
  Task<void> perform(OperationClass& operation) {
    Worker* here = Worker::current();
    const size_t index = here->resident_index().value_or(links_.size());
    if (several_.load(std::memory_order_relaxed) && here != home_ && index < links_.size()) {
      LinkClass& own = *links_[index];
      const bool there = co_await own.open_once();
      if (there) {
        co_await own.perform(operation);
        co_return;
      }
    }
    if (here == home_)
      co_await main_->perform(operation);
    else
      co_await run_on(*home_, main_->perform(operation));
  }

  // Awaits what WORK gives for the link of the home worker, there.
  template <class Work>
  Task<void> on_main(Work work) {
    co_await run_on(*home_, work(*main_));
  }

  // The same for all links.
  template <class Work>
  Task<void> on_all(Work work) {
    for (const std::unique_ptr<LinkClass>& link : links_)
      if (link) co_await run_on(link->worker(), work(*link));
  }

  Task<void> close() {
    several_ = false;
    for (const std::unique_ptr<LinkClass>& link : links_) {
      if (!link) continue;
      if (&link->worker() == Worker::current())
        co_await link->close();
      else
        co_await run_on(link->worker(), link->close());
    }
  }

 private:
  static constexpr size_t kMostLinks = 16;

  const Maker make_;
  Worker* home_ = nullptr;                         // a resident one
  LinkClass* main_ = nullptr;                      // its link
  std::vector<std::unique_ptr<LinkClass>> links_;  // by resident worker
  std::atomic<bool> several_{false};
};

}  // namespace cairn
