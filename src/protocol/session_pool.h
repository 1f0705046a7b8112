#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "async/cancel.h"
#include "async/runtime.h"
#include "async/sync.h"
#include "async/task.h"

namespace cairn {

// The sessions of a node at its server. Further ones are opened when all have much to do: each has
// a thread of its own. A SessionClass is a LibraryThread with load(), in bytes, and broken().
template <class SessionClass>
class SessionPool {
 public:
  using SessionPtr = std::shared_ptr<SessionClass>;
  // Opens one more session, for which the pool then holds a reference. Throws.
  using Opener = std::function<Task<SessionPtr>()>;

  // MOST: how many sessions there are at a time.
  SessionPool(unsigned most, Opener open) : most_(most), open_(std::move(open)) {}

  // A session for the next operation. What finds all of them busy opens another one; the others
  // continue meanwhile. Throws when there is none and none can be opened. From any worker.
  Task<SessionPtr> choose() {
    SessionPtr session = least_busy();
    bool more = false;
    {
      const std::lock_guard lock(state_);
      more = sessions_.size() < most_;
    }
    if (session && (!more || session->load() < kBusyBytes || crowded_.exchange(true)))
      co_return session;
    const bool must = !session;
    std::exception_ptr error;
    try {
      session = co_await add();
    } catch (...) {
      error = std::current_exception();
    }
    // One that is refused is not asked for again.
    if (!must && !error) crowded_ = false;
    if (error && must) std::rethrow_exception(error);
    co_return session;
  }

  // How many sessions broke until now.
  uint64_t losses() {
    least_busy();
    const std::lock_guard lock(state_);
    return ended_.size();
  }

  // Ends all of them. Nobody may choose any more.
  Task<void> close() {
    std::vector<SessionPtr> all;
    {
      const std::lock_guard lock(state_);
      all.swap(sessions_);
      all.insert(all.end(), ended_.begin(), ended_.end());
    }
    co_await run_blocking([&all] {
      for (const SessionPtr& session : all) session->stop();
    });
  }

 private:
  // A session with more to do than this is worth another one.
  static constexpr size_t kBusyBytes = 3 << 20;

  SessionPtr least_busy() {
    const std::lock_guard lock(state_);
    const auto first_broken = std::partition(
        sessions_.begin(), sessions_.end(), [](const SessionPtr& each) { return !each->broken(); });
    ended_.insert(ended_.end(), first_broken, sessions_.end());
    sessions_.erase(first_broken, sessions_.end());
    const auto least = std::min_element(
        sessions_.begin(), sessions_.end(),
        [](const SessionPtr& a, const SessionPtr& b) { return a->load() < b->load(); });
    return least == sessions_.end() ? nullptr : *least;
  }

  Task<SessionPtr> add() {
    const Mutex::Guard guard = co_await opening_.lock();
    // Another one may have opened it meanwhile.
    SessionPtr session = least_busy();
    if (session && session->load() < kBusyBytes) co_return session;
    session = co_await open_();
    const std::lock_guard lock(state_);
    sessions_.push_back(session);
    co_return session;
  }

  const unsigned most_;
  const Opener open_;
  std::mutex state_;
  std::vector<SessionPtr> sessions_;  // that are not broken; guarded by state_
  std::vector<SessionPtr> ended_;     // that are; guarded by state_
  Mutex opening_;
  std::atomic<bool> crowded_{false};  // a session is being opened since all are busy
};

}  // namespace cairn
