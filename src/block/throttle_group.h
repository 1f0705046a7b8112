#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "async/runtime.h"
#include "base/objects.h"

namespace cairn {

// One rate: AVERAGE units a second in the long run; MAX of them a second for at most MAX_LENGTH
// seconds on end. 0: no limit.
struct ThrottleRate {
  uint64_t average = 0;
  uint64_t max = 0;
  uint64_t max_length = 1;
};

struct ThrottleLimits {
  enum Kind { kBpsTotal, kBpsRead, kBpsWrite, kIopsTotal, kIopsRead, kIopsWrite, kKinds };
  ThrottleRate rates[kKinds];
  // A request counts as one operation per so many bytes, rounded up; 0: always as one.
  uint64_t iops_size = 0;

  // Takes x-iops-total, limits.iops-total and the like out of OPTIONS; what is not there stays.
  void update(Options& options);
  // Throws kInvalid when the numbers contradict each other.
  void check() const;
};

// A budget that several nodes share. Requests wait in the order in which they came, and the nodes
// take turns; reads and writes wait apart. Buckets leak at the average rate, and a request may
// start as long as its buckets are not full. From any worker.
class ThrottleGroup : public Object, public std::enable_shared_from_this<ThrottleGroup> {
 public:
  explicit ThrottleGroup(ThrottleLimits limits);

  ThrottleLimits limits() const;
  void set_limits(ThrottleLimits limits);

  // Returns when a request of BYTES by MEMBER may start, and counts it. MEMBER only keeps nodes
  // apart. The group must outlive the wait.
  Task<void> admit(const void* member, bool write, uint64_t bytes);

  // With ON the requests of MEMBER count, but do not wait, until the call without it. Calls nest.
  void hurry(const void* member, bool on);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Bucket {
    double level = 0;  // units that wait to leak
    double burst = 0;  // the same for the rate of bursts
  };
  struct Waiting {
    Worker* worker;
    std::coroutine_handle<> handle;
    uint64_t bytes;
  };
  struct Member {
    const void* id;
    std::deque<Waiting> queue;
  };
  // Reads and writes each have one.
  struct Lane {
    std::list<Member> members;  // those with waiting requests, in the order of their turns
    bool dispatched = false;    // a coroutine hands out turns
  };
  struct Enqueue;

  // All need mutex_.
  void leak(Time now);
  double wait_seconds(bool write) const;
  void count(bool write, uint64_t bytes);
  bool concerns(int kind, bool write) const;

  static Task<void> dispatch(std::shared_ptr<ThrottleGroup> self, bool write);

  mutable std::mutex mutex_;
  ThrottleLimits limits_;
  Bucket buckets_[ThrottleLimits::kKinds];
  Time leaked_;
  Lane lanes_[2];
  std::map<const void*, unsigned> hurried_;  // how often
};

// The kind of object that is one.
const std::vector<ObjectType>& throttle_group_types();

}  // namespace cairn
