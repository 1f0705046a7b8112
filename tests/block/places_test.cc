#include "block/places.h"

#include <gtest/gtest.h>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn {
namespace {

Task<void> nothing() { co_return; }
Task<void> failing() {
  throw Error(ErrorKind::kIo, "no");
  co_return;
}

bool freed(Places& places, Task<void> storing) {
  Runtime runtime;
  return runtime.run(places.free_after(std::move(storing)));
}

uint32_t take(Places& places, uint64_t most, uint32_t expected) {
  uint32_t count = 0;
  const uint32_t first = places.take(most, &count);
  EXPECT_EQ(count, expected);
  return first;
}

TEST(Places, AtTheEndWhileThereIsRoom) {
  Places places(Places::Next::kEnd);
  places.reset(6);
  places.use(1);
  places.use(99);  // of a damaged table
  EXPECT_EQ(places.end(), 2U);
  EXPECT_EQ(take(places, 3, 3), 2U);
  EXPECT_EQ(take(places, 3, 1), 5U);
  EXPECT_EQ(take(places, 3, 1), 0U);
  take(places, 1, 0);
  places.set_limit(8);
  EXPECT_EQ(take(places, 9, 2), 6U);
  places.set_limit(9, true);
  EXPECT_EQ(places.end(), 9U);
  take(places, 1, 0);
}

TEST(Places, FreeOnesFirst) {
  Places places(Places::Next::kFree);
  places.reset(10, 3);
  places.use(4);
  EXPECT_EQ(take(places, 2, 1), 3U);
  EXPECT_EQ(take(places, 2, 2), 5U);
  places.give_back(1, 2);
  EXPECT_EQ(take(places, 9, 2), 1U);
  EXPECT_EQ(take(places, 9, 3), 7U);
}

TEST(Places, WhatIsGivenUpIsFreeOnceTheTableIsStored) {
  Places places(Places::Next::kFree);
  places.reset(4, 4);
  EXPECT_FALSE(freed(places, nothing()));
  places.give_up(2);
  take(places, 1, 0);
  EXPECT_TRUE(freed(places, nothing()));
  EXPECT_EQ(take(places, 2, 1), 2U);
  EXPECT_FALSE(freed(places, nothing()));
}

TEST(Places, NothingIsFreeWhereTheTableWasNotStored) {
  Places places(Places::Next::kFree);
  places.reset(4, 4);
  places.give_up(2);
  EXPECT_THROW(freed(places, failing()), Error);
  take(places, 1, 0);
}

}  // namespace
}  // namespace cairn
