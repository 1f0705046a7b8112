#include <chrono>

#include "async/task_group.h"
#include "block/object_types.h"
#include "block/throttle_group.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;
using Limits = ThrottleLimits;

Limits limits_of(std::string_view text) {
  Options options = Options::parse_list(text);
  Limits limits;
  limits.update(options);
  return limits;
}

TEST(ThrottleLimits, WhatContradictsItselfIsRefused) {
  const std::pair<const char*, const char*> rows[] = {
      {"x-bps-total=1,x-bps-read=1",
       "bps/iops/max total values and read/write values cannot be used at the same time"},
      {"x-iops-size=5", "iops size requires an iops value to be set"},
      {"x-bps-total=1000000000000001", "bps/iops/max values must be within [0, 1000000000000000]"},
      {"x-bps-total=1,x-bps-total-max=2,x-bps-total-max-length=0", "the burst length cannot be 0"},
      {"x-bps-total=1,x-bps-total-max-length=2", "burst length set without burst rate"},
      {"x-bps-total=1,x-bps-total-max=1000000000000000,x-bps-total-max-length=2",
       "burst length too high for this burst rate"},
      {"x-bps-total-max=1", "bps_max/iops_max require corresponding bps/iops values"},
      {"x-bps-total=10,x-bps-total-max=5", "bps_max/iops_max cannot be lower than bps/iops"}};
  for (const auto& [text, expected] : rows)
    EXPECT_EQ(error_of([&, given = text] { limits_of(given).check(); }), expected);
  EXPECT_EQ(limits_of("limits.iops-read=7,limits.iops-size=512").rates[Limits::kIopsRead].average,
            7u);
}

// COUNT requests of BYTES each, one after the other.
Task<void> many(ThrottleGroup* group, const void* member, bool write, unsigned count,
                uint64_t bytes, std::atomic<unsigned>* done) {
  for (unsigned i = 0; i < count; ++i) {
    co_await group->admit(member, write, bytes);
    ++*done;
  }
}

// Runs LINES of them side by side on two workers; gives the seconds.
Task<double> timed(Context* context, ThrottleGroup* group, unsigned lines, bool write,
                   unsigned count, uint64_t bytes) {
  std::atomic<unsigned> done{0};
  std::vector<char> members(lines);
  const auto begin = std::chrono::steady_clock::now();
  TaskGroup tasks;
  for (unsigned i = 0; i < lines; ++i)
    tasks.spawn_on(context->runtime().worker(i % 2),
                   many(group, &members[i], write, count, bytes, &done));
  co_await tasks.join();
  EXPECT_EQ(done, lines * count);
  const auto end = std::chrono::steady_clock::now();
  co_await group->settle();
  co_return std::chrono::duration<double>(end - begin).count();
}

TEST(ThrottleGroup, KeepsRatesFromManyWorkers) {
  World world;
  auto group = std::make_shared<ThrottleGroup>(limits_of("x-bps-total=10000000"));
  // 6 MB at 10 MB/s, less 100 ms of slack.
  const double seconds = world.run(timed(&world.context, group.get(), 4, true, 30, 50000));
  EXPECT_GT(seconds, 0.45);
  EXPECT_LT(seconds, 10);
}

TEST(ThrottleGroup, CountsOperationsBySize) {
  World world;
  auto group = std::make_shared<ThrottleGroup>(limits_of("x-iops-write=100,x-iops-size=4096"));
  // 30 requests count as two each: 60 at 100 a second, 10 of them free.
  EXPECT_GT(world.run(timed(&world.context, group.get(), 1, true, 30, 4097)), 0.4);
  // Reads have no limit.
  EXPECT_LT(world.run(timed(&world.context, group.get(), 2, false, 1000, 1 << 20)), 8);
}

TEST(ThrottleGroup, BurstsPass) {
  World world;
  auto group = std::make_shared<ThrottleGroup>(limits_of("x-iops-total=10,x-iops-total-max=1000"));
  EXPECT_LT(world.run(timed(&world.context, group.get(), 2, true, 250, 512)), 20);
}

Task<void> one(ThrottleGroup* group, const void* member, char name, std::string* order) {
  co_await group->admit(member, true, 1);
  order->push_back(name);
}

Task<void> queue_up(ThrottleGroup* group, std::string* order) {
  const char members[2] = {};
  TaskGroup tasks;
  // The first one fills the bucket; the others wait.
  tasks.spawn(one(group, &members[0], 'x', order));
  for (int i = 0; i < 6; ++i) tasks.spawn(one(group, &members[0], 'a', order));
  for (int i = 0; i < 3; ++i) tasks.spawn(one(group, &members[1], 'b', order));
  const ThrottleLimits none;
  group->set_limits(none);
  co_await tasks.join();
  co_await group->settle();
}

TEST(ThrottleGroup, MembersTakeTurns) {
  World world;
  auto group = std::make_shared<ThrottleGroup>(limits_of("x-iops-total=1"));
  std::string order;
  world.run(queue_up(group.get(), &order));
  EXPECT_EQ(order, "xabababaaa");
}

Task<void> flushes_and_discards(Node* node, unsigned count, unsigned* done) {
  for (unsigned i = 0; i < count; ++i) {
    co_await node->discard(0, 65536);
    co_await node->flush();
    ++*done;
  }
}

Task<NodePtr> open_throttled(Context* context, std::string more) {
  OpenRequest request;
  request.image_opts = true;
  request.flags.writable = true;
  request.options = Options::parse_list("driver=throttle,throttle-group=g,discard=unmap" + more +
                                        ",file.driver=null-co,file.size=1M");
  NodePtr node = co_await open_node(*context, std::move(request));
  co_return node;
}

// A group of one request a second, whose bucket is full.
Task<unsigned> after_the_bucket_is_full(Context* context, std::string policy) {
  Options properties = Options::parse_list("id=g,x-iops-total=1" + policy);
  context->add_object("throttle-group", std::move(properties));
  NodePtr node = co_await open_throttled(context, ",weight=7");
  const std::vector<std::byte> bytes(512);
  co_await node->write(0, bytes);
  unsigned done = 0;
  TaskGroup tasks;
  tasks.spawn(flushes_and_discards(node.get(), 20, &done));
  const unsigned at_once = done;
  find_throttle_group(*context, "g")->set_limits({});
  co_await tasks.join();
  co_await node->close();
  co_return at_once;
}

TEST(ThrottleNode, DiscardsAndFlushesCountWhereTheGroupSaysSo) {
  for (const auto& [policy, at_once] : {std::pair{"", 20u},
                                        {",count-discards=on", 0u},
                                        {",count-flushes=on", 0u},
                                        {",count-discards=off,share=bytes", 20u}}) {
    World world;
    EXPECT_EQ(world.run(after_the_bucket_is_full(&world.context, policy)), at_once) << policy;
  }
}

TEST(ThrottleNode, WhatMakesNoSenseIsRefused) {
  World world;
  EXPECT_EQ(error_of([&] {
              world.context.add_object("throttle-group", Options::parse_list("id=g,share=fairly"));
            }),
            "Parameter 'share' accepts requests or bytes, not 'fairly'");
  world.context.add_object("throttle-group", Options::parse_list("id=g"));
  for (const char* weight : {",weight=0", ",weight=1001"})
    EXPECT_EQ(error_of([&, given = weight] { world.run(open_throttled(&world.context, given)); }),
              "Could not open '': Parameter 'weight' expects a number from 1 to 1000");
}

}  // namespace
}  // namespace cairn
