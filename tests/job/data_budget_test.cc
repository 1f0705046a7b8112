#include "job/data_budget.h"

#include <gtest/gtest.h>

namespace cairn {
namespace {

TEST(DataBudget, ReportsTheExcessOnce) {
  unsigned times = 0;
  DataBudget bounded;
  bounded.limit(100, [&] { ++times; });
  bounded.count(60);
  bounded.count(40);
  EXPECT_EQ(times, 0u);
  bounded.count(1);
  bounded.count(1000);
  EXPECT_EQ(times, 1u);
}

TEST(DataBudget, OneLargePieceIsAnExcess) {
  DataBudget budget;
  unsigned times = 0;
  budget.limit(100, [&] { ++times; });
  budget.count(UINT64_MAX);
  EXPECT_EQ(times, 1u);
}

}  // namespace
}  // namespace cairn
