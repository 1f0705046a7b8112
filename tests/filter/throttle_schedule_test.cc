#include "block/throttle_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <string_view>

namespace cairn {
namespace {

using Time = ThrottleSchedule::Time;
constexpr uint64_t kKiB = 1024, kMiB = 1 << 20;

ThrottleLimits limits_in(std::string_view text) {
  Options options = Options::parse_list(text);
  ThrottleLimits limits;
  limits.update(options);
  return limits;
}

// A user of a disk that answers at once: always as many requests as it may have.
struct User {
  bool write = false;
  uint64_t bytes = 4 * kKiB;
  unsigned depth = 8;
  unsigned weight = 1;
  uint64_t done = 0;  // requests
};

// Time that passes only when all wait.
class Simulation {
 public:
  explicit Simulation(std::string_view limits, bool by_bytes = false)
      : schedule_(limits_in(limits), by_bytes, now_) {}

  // USERS work until SECONDS after the beginning.
  void run(std::deque<User>& users, double seconds) {
    // The first time: one request of each in turn.
    for (unsigned i = 0; !started_ && i < 64; ++i)
      for (User& user : users)
        if (i < user.depth) begun_.push_back(&user);
    started_ = true;
    const Time end = Time{} + to_duration(seconds);
    while (true) {
      issue();
      const std::optional<double> wait = schedule_.wait(now_);
      if (!wait) return;
      const Time next = now_ + to_duration(*wait + 1e-6);
      if (next > end) break;
      now_ = next;
      for (void* ticket : schedule_.due(now_)) finish(static_cast<User*>(ticket));
    }
    now_ = end;
  }
  ThrottleSchedule& schedule() { return schedule_; }
  Time now() const { return now_; }
  void finish(User* user) {
    ++user->done;
    begun_.push_back(user);
  }

 private:
  static Time::duration to_duration(double seconds) {
    return std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(seconds));
  }
  void issue() {
    // As many as are ready at this moment; a request that starts is done and followed by the next.
    while (!begun_.empty()) {
      User* user = begun_.front();
      begun_.pop_front();
      const ThrottleSchedule::Request request{.member = user,
                                              .write = user->write,
                                              .bytes = user->bytes,
                                              .weight = user->weight,
                                              .ticket = user};
      if (schedule_.start(request, now_)) finish(user);
    }
  }

  Time now_{};
  ThrottleSchedule schedule_;
  std::deque<User*> begun_;
  bool started_ = false;
};

// Within 5 % or one request.
void expect_near(uint64_t done, double expected, std::string_view what) {
  EXPECT_LE(std::abs(static_cast<double>(done) - expected), std::max(1.0, expected * 0.05)) << what;
}

struct Row {
  const char* limits;
  User user;
  std::vector<std::pair<double, double>> done;  // seconds, requests
};

// What qemu-storage-daemon 10.0 lets through, measured with a disk that answers at once.
TEST(ThrottleSchedule, LetsThroughWhatTheReferenceDoes) {
  const User large{.bytes = 64 * kKiB, .depth = 16};
  const Row rows[] = {
      {"x-bps-total=1048576", large, {{0.05, 3}, {1, 18}, {3, 50}}},
      {"x-bps-total=1048576", {.bytes = 64 * kKiB, .depth = 1}, {{0.05, 3}, {1, 18}, {3, 50}}},
      {"x-bps-total=1048576", {.bytes = 4 * kMiB, .depth = 1}, {{1, 1}, {4.1, 2}}},
      {"x-bps-total=1048576,x-bps-total-max=4194304", large, {{0.05, 65}, {1, 80}, {2, 96}}},
      {"x-bps-total=1048576,x-bps-total-max=4194304,x-bps-total-max-length=2",
       large,
       {{0.05, 9}, {1, 70}, {2, 134}, {3, 176}, {4, 192}}},
      {"x-iops-total=100", {}, {{0.05, 15}, {1, 110}, {3, 310}}},
      {"x-iops-total=100,x-iops-total-max=500", {}, {{0.2, 520}, {1.2, 620}}},
      {"x-iops-total=100,x-iops-total-max=500,x-iops-total-max-length=2",
       {},
       {{2, 1049}, {3, 1300}, {4, 1400}}},
      {"x-iops-total=100,x-iops-size=4096", {.bytes = 16 * kKiB}, {{1, 28}}},
      {"x-iops-read=50", {}, {{1, 55}}},
  };
  for (const Row& row : rows) {
    Simulation simulation(row.limits);
    std::deque<User> users{row.user};
    for (const auto& [seconds, expected] : row.done) {
      simulation.run(users, seconds);
      expect_near(users[0].done, expected, row.limits);
    }
  }
}

TEST(ThrottleSchedule, WhatHasNoLimitDoesNotWait) {
  Simulation simulation("x-iops-read=50");
  std::deque<User> readers(1);
  simulation.run(readers, 1);
  const ThrottleSchedule::Request write{
      .member = &simulation, .write = true, .bytes = kMiB, .weight = 1, .ticket = nullptr};
  for (int i = 0; i < 10000; ++i) EXPECT_TRUE(simulation.schedule().start(write, simulation.now()));
}

TEST(ThrottleSchedule, TheLongestWaitCounts) {
  Simulation simulation("x-iops-total=100,x-bps-total=1048576");
  std::deque<User> users{{.bytes = 64 * kKiB}};
  simulation.run(users, 3);
  expect_near(users[0].done, 50, "bytes");
}

TEST(ThrottleSchedule, ReadsAndWritesTakeTurns) {
  Simulation simulation("x-iops-total=100");
  std::deque<User> users(2);
  users[1].write = true;
  simulation.run(users, 3);
  expect_near(users[0].done, 156, "reader");
  expect_near(users[1].done, 156, "writer");
}

TEST(ThrottleSchedule, TwoWritersShareTheTurnsOfWrites) {
  Simulation simulation("x-iops-total=90");
  std::deque<User> users(3);
  users[1].write = users[2].write = true;
  simulation.run(users, 3);
  expect_near(users[0].done, 3 * 45, "reader");
  expect_near(users[1].done, 3 * 24, "one writer");
  expect_near(users[2].done, 3 * 24, "the other");
}

TEST(ThrottleSchedule, FewRequestsAtATimeGetAsMuchAsMany) {
  Simulation simulation("x-iops-total=100");
  std::deque<User> users{{.depth = 1}, {.depth = 32}};
  simulation.run(users, 3);
  expect_near(users[0].done, 155, "few");
  expect_near(users[1].done, 155, "many");
}

TEST(ThrottleSchedule, BytesAreSharedByWeights) {
  Simulation simulation("x-bps-total=4194304", true);
  std::deque<User> users{{.bytes = 4 * kKiB, .depth = 32},
                         {.bytes = 256 * kKiB, .depth = 32},
                         {.write = true, .bytes = 64 * kKiB, .depth = 32, .weight = 2}};
  simulation.run(users, 20);
  expect_near(users[0].done * 4, 20 * 1024, "small requests");
  expect_near(users[1].done * 256, 20 * 1024, "large requests");
  expect_near(users[2].done * 64, 20 * 2048, "twice the weight");
}

TEST(ThrottleSchedule, WhoWasAwayDoesNotCatchUp) {
  Simulation simulation("x-bps-total=1048576", true);
  std::deque<User> first{{.bytes = 64 * kKiB}};
  simulation.run(first, 10);
  std::deque<User> both{{.bytes = 64 * kKiB}};
  simulation.finish(&both[0]);
  for (unsigned i = 1; i < both[0].depth; ++i) simulation.finish(&both[0]);
  const uint64_t before = first[0].done;
  both[0].done = 0;
  simulation.run(both, 20);
  expect_near(both[0].done, static_cast<double>(first[0].done - before), "the one that came later");
}

TEST(ThrottleSchedule, WhoIsHurriedDoesNotWaitButCounts) {
  Simulation simulation("x-iops-total=10");
  std::deque<User> users{{.depth = 20}};
  simulation.run(users, 1);
  ThrottleSchedule& schedule = simulation.schedule();
  EXPECT_EQ(schedule.hurry(&users[0], true, simulation.now()).size(), 20u);
  EXPECT_FALSE(schedule.wait(simulation.now()));
  const ThrottleSchedule::Request more{
      .member = &users[0], .write = true, .bytes = 1, .weight = 1, .ticket = nullptr};
  for (int i = 0; i < 80; ++i) EXPECT_TRUE(schedule.start(more, simulation.now()));
  EXPECT_TRUE(schedule.hurry(&users[0], false, simulation.now()).empty());
  EXPECT_FALSE(schedule.start(more, simulation.now()));
  expect_near(static_cast<uint64_t>(*schedule.wait(simulation.now())), 10, "seconds of debt");
}

TEST(ThrottleSchedule, OtherLimitsHoldFromWhenTheyAreSet) {
  Simulation simulation("x-iops-total=10");
  std::deque<User> users{{.depth = 20}};
  simulation.run(users, 1);
  const uint64_t before = users[0].done;
  simulation.schedule().set_limits(limits_in("x-iops-total=1000"), simulation.now());
  simulation.run(users, 2);
  expect_near(users[0].done - before, 1100, "faster");
  // Without limits all that wait start at once.
  simulation.schedule().set_limits({}, simulation.now());
  EXPECT_EQ(simulation.schedule().due(simulation.now()).size(), 20u);
  EXPECT_FALSE(simulation.schedule().wait(simulation.now()));
}

}  // namespace
}  // namespace cairn
