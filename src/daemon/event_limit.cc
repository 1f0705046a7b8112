#include "daemon/event_limit.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn::daemon {
namespace {

constexpr auto kEventPeriod = std::chrono::seconds(1);

int open_bell() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw Error::system(errno, "eventfd");
  return fd;
}

}  // namespace

EventLimit::EventLimit(Send send) : send_(std::move(send)), bell_(open_bell()) {}

EventLimit::~EventLimit() { ::close(bell_); }

void EventLimit::ring() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(bell_, &one, sizeof one);
}

void EventLimit::post(const std::string& key, Value event) {
  std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const auto [at, fresh] = states_.try_emplace(key);
  State& state = at->second;
  if (!fresh && (state.waiting || now < state.next)) {
    const bool first = !state.waiting;
    state.waiting = std::move(event);
    if (first) ring();
    return;
  }
  state.next = now + kEventPeriod;
  send_(event);
}

// Gives when the next one is due.
EventLimit::Clock::time_point EventLimit::send_due() {
  auto next = Clock::time_point::max();
  const auto now = Clock::now();
  for (auto at = states_.begin(); at != states_.end();) {
    State& state = at->second;
    if (state.next <= now && !state.waiting) {
      at = states_.erase(at);
      continue;
    }
    if (state.next <= now) {
      send_(*state.waiting);
      state.waiting.reset();
      state.next = now + kEventPeriod;
    } else if (state.waiting) {
      next = std::min(next, state.next);
    }
    ++at;
  }
  return next;
}

Task<void> EventLimit::run() {
  while (true) {
    auto next = Clock::time_point::max();
    {
      std::lock_guard lock(mutex_);
      if (stopped_) break;
      next = send_due();
    }
    co_await await_ready(bell_, POLLIN, next);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(bell_, &count, sizeof count);
  }
}

void EventLimit::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  ring();
}

}  // namespace cairn::daemon
