#include "export/vhost_user/busy_poll.h"

#include <gtest/gtest.h>

namespace cairn::vhost_user {
namespace {

using std::chrono::milliseconds;

// How many of WAITS begin with looking, when requests come PAUSE after the one before.
unsigned looks(BusyPoll& poll, unsigned waits, BusyPoll::Clock::duration pause) {
  unsigned count = 0;
  for (unsigned i = 0; i < waits; ++i) {
    const bool looked = poll.worthwhile();
    count += looked ? 1 : 0;
    if (looked && pause < BusyPoll::kLongest) {
      poll.found();
      continue;
    }
    if (looked) poll.missed();
    poll.slept(pause);
  }
  return count;
}

TEST(BusyPoll, RequestsThatFollowEachOtherAreLookedFor) {
  BusyPoll poll;
  EXPECT_GE(looks(poll, 100, std::chrono::microseconds(20)), 99U);
}

TEST(BusyPoll, PausesCostNextToNothing) {
  BusyPoll poll;
  EXPECT_EQ(looks(poll, 1000, milliseconds(10)), 0U);
  // Too long to be waited for, and short enough to be tried now and then.
  EXPECT_LE(looks(poll, 10000, std::chrono::microseconds(100)), 50U);
}

TEST(BusyPoll, GoesOnAfterAPause) {
  BusyPoll poll;
  looks(poll, 100, milliseconds(10));
  EXPECT_GE(looks(poll, 100, std::chrono::microseconds(20)), 98U);
  // Also where it was in vain for long.
  looks(poll, 10000, std::chrono::microseconds(100));
  EXPECT_GE(looks(poll, 1000, std::chrono::microseconds(20)), 1000U - BusyPoll::kMostLeftOut - 2);
}

}  // namespace
}  // namespace cairn::vhost_user
