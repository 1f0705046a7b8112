#include "export/nbd/memory.h"

#include <gtest/gtest.h>

namespace cairn::nbd::server {
namespace {

// An eighth of it is for spare buffers.
constexpr uint64_t kMost = 800;

TEST(ServerMemory, ServesThoseThatWaitInTheirOrder) {
  ServerMemory memory(kMost);
  ASSERT_TRUE(memory.take_now(600));
  EXPECT_FALSE(memory.take_now(200));
  const uint64_t first = memory.queue();
  const uint64_t second = memory.queue();
  // There is room for this one, but not before others.
  EXPECT_FALSE(memory.take_now(50));
  EXPECT_FALSE(memory.take(second, 50));
  EXPECT_FALSE(memory.take(first, 200));
  memory.release(600);
  EXPECT_FALSE(memory.take(second, 50));
  EXPECT_TRUE(memory.take(first, 200));
  EXPECT_TRUE(memory.take(second, 500));
  EXPECT_FALSE(memory.take_now(1));
}

TEST(ServerMemory, ATicketThatIsGivenBackHoldsUpNobody) {
  ServerMemory memory(kMost);
  ASSERT_TRUE(memory.take_now(700));
  const uint64_t first = memory.queue();
  const uint64_t second = memory.queue();
  memory.leave(first);
  memory.release(700);
  EXPECT_TRUE(memory.take(second, 700));
}

TEST(ServerMemory, SpareBuffersHaveABoundOfTheirOwn) {
  ServerMemory memory(kMost);
  EXPECT_TRUE(memory.keep(100));
  EXPECT_FALSE(memory.keep(1));
  EXPECT_TRUE(memory.take_now(700));
  memory.let_go(100);
  EXPECT_TRUE(memory.keep(100));
}

}  // namespace
}  // namespace cairn::nbd::server
