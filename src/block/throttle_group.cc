#include "block/throttle_group.h"

#include <algorithm>

#include "base/arith.h"
#include "base/error.h"

namespace cairn {
namespace {

constexpr uint64_t kMostRate = 1000000000000000;
constexpr const char* kNames[ThrottleLimits::kKinds] = {"bps-total",  "bps-read",  "bps-write",
                                                        "iops-total", "iops-read", "iops-write"};
// Without a burst a bucket holds what leaks in this time: enough for timers to be exact in sum.
constexpr double kSlackSeconds = 0.1;

[[noreturn]] void invalid(const char* text) { throw Error(ErrorKind::kInvalid, text); }

double capacity(const ThrottleRate& rate) {
  if (rate.max != 0) return static_cast<double>(rate.max) * static_cast<double>(rate.max_length);
  return static_cast<double>(rate.average) * kSlackSeconds;
}

}  // namespace

void ThrottleLimits::update(Options& options) {
  const auto take = [&](const std::string& name, uint64_t* value) {
    for (const char* prefix : {"x-", "limits."}) {
      const std::string key = prefix + name;
      if (const auto given = options.number(key)) *value = *given;
      options.erase(key);
    }
  };
  for (int kind = 0; kind < kKinds; ++kind) {
    const std::string name = kNames[kind];
    take(name, &rates[kind].average);
    take(name + "-max", &rates[kind].max);
    take(name + "-max-length", &rates[kind].max_length);
  }
  take("iops-size", &iops_size);
}

void ThrottleLimits::check() const {
  for (const int total : {kBpsTotal, kIopsTotal}) {
    const ThrottleRate& all = rates[total];
    const ThrottleRate& read = rates[total + 1];
    const ThrottleRate& write = rates[total + 2];
    if ((all.average != 0 && (read.average != 0 || write.average != 0)) ||
        (all.max != 0 && (read.max != 0 || write.max != 0)))
      invalid("bps/iops/max total values and read/write values cannot be used at the same time");
  }
  if (iops_size != 0 && rates[kIopsTotal].average == 0 && rates[kIopsRead].average == 0 &&
      rates[kIopsWrite].average == 0)
    invalid("iops size requires an iops value to be set");
  for (const ThrottleRate& rate : rates) {
    if (rate.average > kMostRate || rate.max > kMostRate)
      invalid("bps/iops/max values must be within [0, 1000000000000000]");
    if (rate.max_length == 0) invalid("the burst length cannot be 0");
    if (rate.max_length > 1 && rate.max == 0) invalid("burst length set without burst rate");
    if (rate.max != 0 && rate.max_length > kMostRate / rate.max)
      invalid("burst length too high for this burst rate");
    if (rate.max != 0 && rate.average == 0)
      invalid("bps_max/iops_max require corresponding bps/iops values");
    if (rate.max != 0 && rate.max < rate.average)
      invalid("bps_max/iops_max cannot be lower than bps/iops");
  }
}

ThrottleGroup::ThrottleGroup(ThrottleLimits limits)
    : limits_(limits), leaked_(std::chrono::steady_clock::now()) {
  limits_.check();
}

ThrottleLimits ThrottleGroup::limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

void ThrottleGroup::set_limits(ThrottleLimits limits) {
  limits.check();
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  for (Bucket& bucket : buckets_) bucket = {};
  leaked_ = std::chrono::steady_clock::now();
}

bool ThrottleGroup::concerns(int kind, bool write) const {
  return limits_.rates[kind].average != 0 && (kind % 3 == 0 || (kind % 3 == 2) == write);
}

void ThrottleGroup::leak(Time now) {
  const double seconds = std::chrono::duration<double>(now - leaked_).count();
  leaked_ = now;
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    const ThrottleRate& rate = limits_.rates[kind];
    Bucket& bucket = buckets_[kind];
    bucket.level = std::max(0.0, bucket.level - seconds * static_cast<double>(rate.average));
    bucket.burst = std::max(0.0, bucket.burst - seconds * static_cast<double>(rate.max));
  }
}

// How long until no bucket of a read or a write is full.
double ThrottleGroup::wait_seconds(bool write) const {
  double wait = 0;
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    if (!concerns(kind, write)) continue;
    const ThrottleRate& rate = limits_.rates[kind];
    const Bucket& bucket = buckets_[kind];
    wait = std::max(wait, (bucket.level - capacity(rate)) / static_cast<double>(rate.average));
    // Within a long burst its own rate is kept as well.
    if (rate.max != 0 && rate.max_length > 1)
      wait = std::max(wait, bucket.burst / static_cast<double>(rate.max) - kSlackSeconds);
  }
  return wait;
}

void ThrottleGroup::count(bool write, uint64_t bytes) {
  const uint64_t operations =
      limits_.iops_size == 0 ? 1 : std::max<uint64_t>(1, div_ceil(bytes, limits_.iops_size));
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    if (!concerns(kind, write)) continue;
    const double units =
        static_cast<double>(kind < ThrottleLimits::kIopsTotal ? bytes : operations);
    buckets_[kind].level += units;
    buckets_[kind].burst += units;
  }
}

// Waits for its turn when it may not start at once.
struct ThrottleGroup::Enqueue {
  ThrottleGroup& group;
  const void* member;
  bool write;
  uint64_t bytes;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    std::shared_ptr<ThrottleGroup> self;
    {
      const std::lock_guard lock(group.mutex_);
      Lane& lane = group.lanes_[write];
      if (group.hurried_.contains(member)) {
        group.leak(std::chrono::steady_clock::now());
        group.count(write, bytes);
        return false;
      }
      if (lane.members.empty() && !lane.dispatched) {
        group.leak(std::chrono::steady_clock::now());
        if (group.wait_seconds(write) <= 0) {
          group.count(write, bytes);
          return false;
        }
      }
      auto mine = std::find_if(lane.members.begin(), lane.members.end(),
                               [&](const Member& one) { return one.id == member; });
      if (mine == lane.members.end())
        mine = lane.members.insert(lane.members.end(), Member{member, {}});
      mine->queue.push_back({Worker::current(), handle, bytes});
      if (!lane.dispatched) {
        lane.dispatched = true;
        self = group.shared_from_this();
      }
    }
    // From here on this frame may be gone: another worker resumes it.
    if (self) {
      const bool lane = write;
      spawn_detached_on(Worker::current()->home(), dispatch(self, lane));
    }
    return true;
  }
  void await_resume() const noexcept {}
};

Task<void> ThrottleGroup::dispatch(std::shared_ptr<ThrottleGroup> self, bool write) {
  while (true) {
    double wait = 0;
    {
      const std::lock_guard lock(self->mutex_);
      Lane& lane = self->lanes_[write];
      self->leak(std::chrono::steady_clock::now());
      while (!lane.members.empty()) {
        wait = self->wait_seconds(write);
        if (wait > 0) break;
        const auto turn = lane.members.begin();
        const Waiting next = turn->queue.front();
        turn->queue.pop_front();
        self->count(write, next.bytes);
        if (turn->queue.empty())
          lane.members.erase(turn);
        else
          lane.members.splice(lane.members.end(), lane.members, turn);
        next.worker->post(next.handle);
      }
      if (lane.members.empty()) {
        lane.dispatched = false;
        co_return;
      }
    }
    // Limits may change meanwhile: never asleep for long.
    wait = std::min(wait, 0.5);
    co_await sleep_for(std::chrono::nanoseconds(static_cast<int64_t>(wait * 1e9) + 1000));
  }
}

void ThrottleGroup::hurry(const void* member, bool on) {
  const std::lock_guard lock(mutex_);
  if (!on) {
    const auto found = hurried_.find(member);
    if (found != hurried_.end() && --found->second == 0) hurried_.erase(found);
    return;
  }
  ++hurried_[member];
  leak(std::chrono::steady_clock::now());
  for (const bool write : {false, true}) {
    Lane& lane = lanes_[write];
    const auto mine = std::find_if(lane.members.begin(), lane.members.end(),
                                   [&](const Member& one) { return one.id == member; });
    if (mine == lane.members.end()) continue;
    for (const Waiting& next : mine->queue) {
      count(write, next.bytes);
      next.worker->post(next.handle);
    }
    lane.members.erase(mine);
  }
}

Task<void> ThrottleGroup::admit(const void* member, bool write, uint64_t bytes) {
  co_await Enqueue{*this, member, write, bytes};
}

namespace {

std::shared_ptr<Object> make_throttle_group(std::string_view, const Options& properties,
                                            const Objects&) {
  Options rest = properties;
  rest.mark_used("id");
  ThrottleLimits limits;
  limits.update(rest);
  if (const auto unknown = rest.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
  return std::make_shared<ThrottleGroup>(limits);
}

}  // namespace

const std::vector<ObjectType>& throttle_group_types() {
  static const std::vector<ObjectType> types = {
      {"throttle-group",
       {{"limits", "ThrottleLimits"},
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
