// What is counted of the requests of users.
#include "block/request_counts.h"

#include <thread>

#include "block/graph/reopen.h"
#include "graph_fixture.h"

namespace cairn {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

TEST(RequestCounts, AreInClassesOfDuration) {
  RequestCounts counts(2);
  counts.add(RequestKind::kRead, 10, 25us, true);
  counts.add(RequestKind::kRead, 20, 25us + 1ns, true);
  counts.add(RequestKind::kRead, 40, 11s, false);
  const RequestSums sums = counts.sums(RequestKind::kRead);
  EXPECT_EQ(sums.by_duration.front(), 1U);
  EXPECT_EQ(sums.by_duration[1], 1U);
  EXPECT_EQ(sums.by_duration.back(), 1U);
  EXPECT_EQ(sums.requests(), 3U);
  EXPECT_EQ(sums.failed, 1U);
  EXPECT_EQ(sums.bytes, 30U);
  EXPECT_EQ(sums.nanoseconds, 11'000'050'001U);
  EXPECT_EQ(counts.sums(RequestKind::kWrite).requests(), 0U);
}

TEST(RequestCounts, OfAllThreadsAreAddedUp) {
  RequestCounts counts(1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) counts.add(RequestKind::kFlush, 0, 1ns, true);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts.sums(RequestKind::kFlush).requests(), 4000U);
}

class CountingTest : public GraphTest {
 protected:
  void write(Node& node, size_t bytes) {
    world_.run(node.write(0, std::vector<std::byte>(bytes, std::byte{1})));
  }
  uint64_t written(const std::string& name) const {
    for (const CountedNode& one : graph_.counted_nodes())
      if (one.name == name) return one.counts->sums(RequestKind::kWrite).bytes;
    ADD_FAILURE() << name;
    return 0;
  }
};

TEST_F(CountingTest, BeginsWhenItIsAskedFor) {
  add_raw("a");
  const RootPtr user = attach(graph_.get("a"), kRead | kWrite);
  write(*user, 512);
  EXPECT_TRUE(graph_.counted_nodes().empty());
  EXPECT_EQ(user->counts(), nullptr);
  graph_.count_requests();
  graph_.count_requests();
  write(*user, 1024);
  EXPECT_EQ(user->counts()->sums(RequestKind::kWrite).bytes, 1024U);
  EXPECT_EQ(written("a"), 1024U);
  EXPECT_EQ(written("a-f"), 1024U);
  add_raw("b");
  const RootPtr other = attach(graph_.get("b"), kRead);
  std::vector<std::byte> out(100);
  world_.run(other->read(0, out));
  EXPECT_EQ(other->counts()->sums(RequestKind::kRead).bytes, 100U);
  world_.run(graph_.detach(user));
  world_.run(graph_.detach(other));
}

TEST_F(CountingTest, FollowsTheUserToAnotherNode) {
  graph_.count_requests();
  add_raw("a");
  add_raw("b");
  const RootPtr user = attach(graph_.get("a"), kRead | kWrite);
  write(*user, 512);
  world_.run(graph_.replace(graph_.get("a"), graph_.get("b")));
  write(*user, 1024);
  EXPECT_EQ(written("a"), 512U);
  EXPECT_EQ(written("b"), 1024U);
  EXPECT_EQ(user->counts()->sums(RequestKind::kWrite).bytes, 1536U);
  world_.run(graph_.detach(user));
}

TEST_F(CountingTest, GoesOnWhenANodeIsOpenedAgain) {
  graph_.count_requests();
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  write(*user, 512);
  Reopener reopener(graph_);
  reopener.add(Options::parse_list("driver=qcow2,node-name=q,file=q-f,discard=unmap"));
  world_.run(reopener.run());
  write(*user, 1024);
  EXPECT_EQ(written("q"), 1536U);
  world_.run(graph_.detach(user));
}

TEST_F(CountingTest, TellsWhatFailed) {
  graph_.count_requests();
  add_raw("a");
  add("driver=blkdebug,node-name=bad,image=a,inject-error.0.event=write_aio,"
      "inject-error.0.once=on");
  add("driver=raw,node-name=top,file=bad");
  const RootPtr user = attach(graph_.get("top"), kRead | kWrite);
  EXPECT_NE(error_of([&] { write(*user, 512); }), "");
  const RequestSums sums = user->counts()->sums(RequestKind::kWrite);
  EXPECT_EQ(sums.failed, 1U);
  EXPECT_EQ(sums.requests(), 1U);
  EXPECT_EQ(sums.bytes, 0U);
  world_.run(graph_.detach(user));
}

}  // namespace
}  // namespace cairn
