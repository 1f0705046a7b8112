#include "block/throttle_schedule.h"

#include <algorithm>

#include "base/arith.h"

namespace cairn {
namespace {

// Without a burst a bucket holds what leaks in this time: enough for timers to be exact in sum.
constexpr double kSlackSeconds = 0.1;
// What a request costs at least where bytes are shared.
constexpr uint64_t kLeastShare = 512;

double capacity(const ThrottleRate& rate) {
  if (rate.max != 0) return static_cast<double>(rate.max) * static_cast<double>(rate.max_length);
  return static_cast<double>(rate.average) * kSlackSeconds;
}

}  // namespace

ThrottleSchedule::ThrottleSchedule(const ThrottleLimits& limits, bool by_bytes, Time now)
    : limits_(limits), by_bytes_(by_bytes), leaked_(now) {
  limits_.check();
}

void ThrottleSchedule::set_limits(const ThrottleLimits& limits, Time now) {
  limits.check();
  limits_ = limits;
  for (Bucket& bucket : buckets_) bucket = {};
  leaked_ = now;
}

void ThrottleSchedule::leak(Time now) {
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
double ThrottleSchedule::wait_seconds(bool write) const {
  double wait = 0;
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    if (!limits_.concerns(kind, write)) continue;
    const ThrottleRate& rate = limits_.rates[kind];
    const Bucket& bucket = buckets_[kind];
    wait = std::max(wait, (bucket.level - capacity(rate)) / static_cast<double>(rate.average));
    // Within a long burst its own rate is kept as well.
    if (rate.max != 0 && rate.max_length > 1)
      wait = std::max(wait, bucket.burst / static_cast<double>(rate.max) - kSlackSeconds);
  }
  return wait;
}

void ThrottleSchedule::count(bool write, uint64_t bytes) {
  const uint64_t operations =
      limits_.iops_size == 0 ? 1 : std::max<uint64_t>(1, div_ceil(bytes, limits_.iops_size));
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    if (!limits_.concerns(kind, write)) continue;
    const double units =
        static_cast<double>(kind < ThrottleLimits::kIopsTotal ? bytes : operations);
    buckets_[kind].level += units;
    buckets_[kind].burst += units;
  }
}

// Who was away does not get what it did not ask for.
double ThrottleSchedule::start_of(const void* member) const {
  const auto found = finished_.find(member);
  return found == finished_.end() ? share_ : std::max(share_, found->second);
}

// REQUEST, which begins at START, has its share; where that ends.
double ThrottleSchedule::charge(const Request& request, double start) {
  share_ = start;
  const double cost = static_cast<double>(std::max(request.bytes, kLeastShare));
  return finished_[request.member] = start + cost / std::max(1u, request.weight);
}

bool ThrottleSchedule::start(const Request& request, Time now) {
  leak(now);
  const bool write = request.write;
  if (hurried_.contains(request.member)) {
    count(write, request.bytes);
    return true;
  }
  const bool shared = limits_.rates[ThrottleLimits::kBpsTotal].average != 0 ||
                      limits_.rates[ThrottleLimits::kIopsTotal].average != 0;
  // One that could start itself must not be overtaken.
  const bool others = shared && !lanes_[!write].empty() && wait_seconds(!write) <= 0;
  if (lanes_[write].empty() && !others && wait_seconds(write) <= 0) {
    count(write, request.bytes);
    if (by_bytes_) charge(request, start_of(request.member));
    return true;
  }
  Lane& lane = lanes_[write];
  auto mine = std::find_if(lane.begin(), lane.end(),
                           [&](const Member& one) { return one.id == request.member; });
  if (mine == lane.end())
    mine = lane.insert(lane.end(), Member{.id = request.member,
                                          .queue = {},
                                          .start = by_bytes_ ? start_of(request.member) : 0});
  mine->queue.push_back(request);
  return false;
}

ThrottleSchedule::Lane::iterator ThrottleSchedule::next_member(bool write) {
  Lane& lane = lanes_[write];
  if (!by_bytes_) return lane.begin();
  return std::min_element(lane.begin(), lane.end(),
                          [](const Member& a, const Member& b) { return a.start < b.start; });
}

// False while neither reads nor writes may start.
bool ThrottleSchedule::choose_lane(bool* write) {
  bool may[2];
  for (const bool lane : {false, true})
    may[lane] = !lanes_[lane].empty() && wait_seconds(lane) <= 0;
  if (!may[0] && !may[1]) return false;
  if (may[0] != may[1])
    *write = may[1];
  else if (by_bytes_)
    *write = next_member(true)->start < next_member(false)->start;
  else
    *write = !last_write_;
  return true;
}

ThrottleSchedule::Request ThrottleSchedule::take(bool write) {
  Lane& lane = lanes_[write];
  const auto member = next_member(write);
  const Request request = member->queue.front();
  member->queue.pop_front();
  if (by_bytes_) member->start = charge(request, member->start);
  if (member->queue.empty())
    lane.erase(member);
  else
    lane.splice(lane.end(), lane, member);
  return request;
}

std::vector<void*> ThrottleSchedule::due(Time now) {
  leak(now);
  std::vector<void*> tickets;
  bool write = false;
  while (choose_lane(&write)) {
    const Request request = take(write);
    count(write, request.bytes);
    last_write_ = write;
    tickets.push_back(request.ticket);
  }
  return tickets;
}

std::vector<void*> ThrottleSchedule::hurry(const void* member, bool on, Time now) {
  std::vector<void*> tickets;
  if (!on) {
    const auto found = hurried_.find(member);
    if (found != hurried_.end() && --found->second == 0) hurried_.erase(found);
    return tickets;
  }
  ++hurried_[member];
  leak(now);
  for (Lane& lane : lanes_) {
    const auto mine =
        std::find_if(lane.begin(), lane.end(), [&](const Member& one) { return one.id == member; });
    if (mine == lane.end()) continue;
    for (const Request& request : mine->queue) {
      count(request.write, request.bytes);
      tickets.push_back(request.ticket);
    }
    lane.erase(mine);
  }
  return tickets;
}

std::optional<double> ThrottleSchedule::wait(Time now) {
  leak(now);
  std::optional<double> least;
  for (const bool lane : {false, true}) {
    if (lanes_[lane].empty()) continue;
    const double seconds = wait_seconds(lane);
    if (!least || seconds < *least) least = seconds;
  }
  return least;
}

}  // namespace cairn
