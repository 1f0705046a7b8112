#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "block/throttle_limits.h"

namespace cairn {

// When requests under limits may start, and in which order, by a clock that the caller reads:
// nothing here waits. Each rate has a bucket that leaks at the average rate, and a request may
// start as long as its buckets are not full; what it costs is added then. Members take turns by
// request, or share the bytes by their weights; reads and writes wait apart and take turns where
// they share a rate. Not for several threads at a time.
class ThrottleSchedule {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Request {
    const void* member = nullptr;
    bool write = false;
    uint64_t bytes = 0;
    unsigned weight = 1;
    void* ticket = nullptr;  // what due() gives back
  };

  // Throws kInvalid for limits that contradict each other.
  ThrottleSchedule(const ThrottleLimits& limits, bool by_bytes, Time now);

  const ThrottleLimits& limits() const { return limits_; }
  // The buckets are empty then. Throws kInvalid.
  void set_limits(const ThrottleLimits& limits, Time now);

  // True where REQUEST starts at once, which is counted; else it waits for due().
  bool start(const Request& request, Time now);
  // The tickets of those that waited and start now, in their order; they are counted.
  std::vector<void*> due(Time now);
  // With ON the requests of MEMBER count, but do not wait, until the call without it: gives the
  // tickets of those that waited. Calls nest.
  std::vector<void*> hurry(const void* member, bool on, Time now);
  // Seconds until due() has something; nothing while none waits.
  std::optional<double> wait(Time now);
  // Forgets how much MEMBER, which has no request waiting, had.
  void forget(const void* member) { finished_.erase(member); }

 private:
  struct Bucket {
    double level = 0;  // units that wait to leak
    double burst = 0;  // the same for the rate of bursts
  };
  struct Member {
    const void* id = nullptr;
    std::deque<Request> queue;
    double start = 0;  // by bytes: when, in shares, its next request begins
  };
  using Lane = std::list<Member>;  // those with waiting requests, in the order of their turns

  void leak(Time now);
  double wait_seconds(bool write) const;
  void count(bool write, uint64_t bytes);
  double start_of(const void* member) const;
  double charge(const Request& request, double start);
  Lane::iterator next_member(bool write);
  bool choose_lane(bool* write);
  Request take(bool write);

  ThrottleLimits limits_;
  const bool by_bytes_;
  Bucket buckets_[ThrottleLimits::kKinds];
  Time leaked_;
  Lane lanes_[2];
  std::map<const void*, unsigned> hurried_;  // how often
  bool last_write_ = false;
  double share_ = 0;                        // by bytes: where the request that started last began
  std::map<const void*, double> finished_;  // and where each member's last one ended
};

}  // namespace cairn
