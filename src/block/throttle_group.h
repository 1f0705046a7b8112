#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "async/runtime.h"
#include "base/objects.h"
#include "block/throttle_schedule.h"

namespace cairn {

// A budget that several nodes share: ThrottleSchedule by the clock of the machine. From any worker.
class ThrottleGroup : public Object, public std::enable_shared_from_this<ThrottleGroup> {
 public:
  explicit ThrottleGroup(ThrottleLimits limits, ThrottlePolicy policy = {});

  ThrottleLimits limits() const;
  // Those that wait and may start by the new ones do so at once. Throws kInvalid.
  void set_limits(ThrottleLimits limits);
  const ThrottlePolicy& policy() const { return policy_; }

  // Returns when a request of BYTES by MEMBER may start, and counts it. MEMBER only keeps nodes
  // apart. The group must outlive the wait.
  Task<void> admit(const void* member, bool write, uint64_t bytes, unsigned weight = 1);
  // With ON the requests of MEMBER count, but do not wait, until the call without it. Calls nest.
  void hurry(const void* member, bool on);
  // Returns when nothing of the group runs that no request waits for: before the workers end.
  Task<void> settle();
  // MEMBER asks for nothing any more.
  void forget(const void* member);

 private:
  struct Waiting;
  struct Enqueue;
  static Task<void> dispatch(std::shared_ptr<ThrottleGroup> self);
  static void resume(const std::vector<void*>& tickets);

  const ThrottlePolicy policy_;
  mutable std::mutex mutex_;
  ThrottleSchedule schedule_;
  bool dispatched_ = false;  // a coroutine waits for the moments in which requests start
};

// The kind of object that is one.
const std::vector<ObjectType>& throttle_group_types();

}  // namespace cairn
