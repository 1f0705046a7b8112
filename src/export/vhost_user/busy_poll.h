// When it pays to look at a ring again and again before sleeping: to be woken takes longer than a
// guest that sends one request after the other needs for its next one.
#pragma once

#include <algorithm>
#include <chrono>

namespace cairn::vhost_user {

// What one queue has learned. Where looking was in vain it is left out, twice as often each time:
// a guest that pauses costs next to nothing.
class BusyPoll {
 public:
  using Clock = std::chrono::steady_clock;
  // How long a queue looks at most.
  static constexpr auto kLongest = std::chrono::microseconds(50);
  // A sleep of less may have been a short wait and the waking after it.
  static constexpr auto kShortSleep = std::chrono::microseconds(200);
  static constexpr unsigned kMostLeftOut = 256;

  // Whether the next wait should begin with looking.
  bool worthwhile() {
    if (left_out_ == 0) return true;
    --left_out_;
    return false;
  }
  // A request came while it was looked for.
  void found() { penalty_ = 0; }
  // None came.
  void missed() {
    penalty_ = std::min(std::max(1U, penalty_ * 2), kMostLeftOut);
    left_out_ = penalty_;
  }
  // A request came after a sleep of TIME. Only short ones are a step towards looking again.
  void slept(Clock::duration time) {
    if (time >= kShortSleep) left_out_ = std::max(left_out_, 1U);
  }

 private:
  unsigned left_out_ = 1;  // waits
  unsigned penalty_ = 0;
};

}  // namespace cairn::vhost_user
