#include "block/throttle_group.h"

#include <algorithm>

#include "base/error.h"

namespace cairn {

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

ThrottleGroup::ThrottleGroup(ThrottleLimits limits, ThrottlePolicy policy)
    : policy_(policy), schedule_(limits, policy.by_bytes, Clock::now()) {}

ThrottleLimits ThrottleGroup::limits() const {
  const std::lock_guard lock(mutex_);
  return schedule_.limits();
}

void ThrottleGroup::set_limits(ThrottleLimits limits) {
  const std::lock_guard lock(mutex_);
  schedule_.set_limits(limits, Clock::now());
  resume(schedule_.due(Clock::now()));
}

void ThrottleGroup::hurry(const void* member, bool on) {
  const std::lock_guard lock(mutex_);
  resume(schedule_.hurry(member, on, Clock::now()));
}

void ThrottleGroup::forget(const void* member) {
  const std::lock_guard lock(mutex_);
  schedule_.forget(member);
}

// A request that waits; lives in the frame of who awaits it.
struct ThrottleGroup::Waiting {
  Worker* worker = nullptr;
  std::coroutine_handle<> handle;
};

void ThrottleGroup::resume(const std::vector<void*>& tickets) {
  for (void* ticket : tickets) {
    const Waiting waiting = *static_cast<Waiting*>(ticket);
    waiting.worker->post(waiting.handle);
  }
}

// Waits for its turn when it may not start at once.
struct ThrottleGroup::Enqueue {
  ThrottleGroup& group;
  ThrottleSchedule::Request request;
  Waiting waiting = {};

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    std::shared_ptr<ThrottleGroup> self;
    {
      const std::lock_guard lock(group.mutex_);
      waiting = {.worker = Worker::current(), .handle = handle};
      request.ticket = &waiting;
      if (group.schedule_.start(request, Clock::now())) return false;
      if (!group.dispatched_) {
        group.dispatched_ = true;
        self = group.shared_from_this();
      }
    }
    // From here on this frame may be gone: another worker resumes it.
    if (self) spawn_detached_on(Worker::current()->home(), dispatch(self));
    return true;
  }
  void await_resume() const noexcept {}
};

Task<void> ThrottleGroup::dispatch(std::shared_ptr<ThrottleGroup> self) {
  // Limits may change meanwhile: never asleep for long.
  constexpr double kMostSleep = 0.1;
  while (true) {
    std::optional<double> wait;
    {
      const std::lock_guard lock(self->mutex_);
      resume(self->schedule_.due(Clock::now()));
      wait = self->schedule_.wait(Clock::now());
      if (!wait) {
        self->dispatched_ = false;
        co_return;
      }
    }
    const double seconds = std::min(*wait, kMostSleep);
    co_await sleep_for(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9) + 1000));
  }
}

Task<void> ThrottleGroup::settle() {
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (!dispatched_ || schedule_.wait(Clock::now())) co_return;
    }
    co_await sleep_for(std::chrono::milliseconds(5));
  }
}

Task<void> ThrottleGroup::admit(const void* member, bool write, uint64_t bytes, unsigned weight) {
  const ThrottleSchedule::Request request{
      .member = member, .write = write, .bytes = bytes, .weight = weight, .ticket = nullptr};
  co_await Enqueue{*this, request};
}

namespace {

std::shared_ptr<Object> make_throttle_group(std::string_view, const Options& properties,
                                            const Objects&) {
  Options rest = properties;
  rest.mark_used("id");
  ThrottleLimits limits;
  limits.update(rest);
  ThrottlePolicy policy;
  policy.update(rest);
  if (const auto unknown = rest.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
  return std::make_shared<ThrottleGroup>(limits, policy);
}

}  // namespace

const std::vector<ObjectType>& throttle_group_types() {
  static const std::vector<ObjectType> types = {
      {"throttle-group",
       {{"count-discards", "bool", true},
        {"count-flushes", "bool", true},
        {"limits", "ThrottleLimits"},
        {"share", "string", true},
        {"x-bps-read-max-length", "int"},
        {"x-bps-read-max", "int"},
        {"x-bps-read", "int"},
        {"x-bps-total-max-length", "int"},
        {"x-bps-total-max", "int"},
        {"x-bps-total", "int"},
        {"x-bps-write-max-length", "int"},
        {"x-bps-write-max", "int"},
        {"x-bps-write", "int"},
        {"x-iops-read-max-length", "int"},
        {"x-iops-read-max", "int"},
        {"x-iops-read", "int"},
        {"x-iops-size", "int"},
        {"x-iops-total-max-length", "int"},
        {"x-iops-total-max", "int"},
        {"x-iops-total", "int"},
        {"x-iops-write-max-length", "int"},
        {"x-iops-write-max", "int"},
        {"x-iops-write", "int"}},
       make_throttle_group},
  };
  return types;
}

}  // namespace cairn
