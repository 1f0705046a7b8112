#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/bytes.h"

namespace cairn {
namespace {

TEST(IsZero, EmptyIsZero) { EXPECT_TRUE(is_zero({})); }

TEST(IsZero, FindsOneByteAnywhereAtEveryLengthAndAlignment) {
  std::vector<std::byte> bytes(1100, std::byte{0});
  for (size_t start : {0U, 1U, 7U, 16U, 33U}) {
    for (size_t length : {1U, 15U, 16U, 63U, 64U, 65U, 127U, 128U, 191U, 320U, 321U, 511U, 1024U}) {
      const ByteSpan view = ByteSpan(bytes).subspan(start, length);
      EXPECT_TRUE(is_zero(view));
      for (size_t at = 0; at < length; ++at) {
        bytes[start + at] = std::byte{0x80};
        EXPECT_FALSE(is_zero(view)) << start << " " << length << " " << at;
        bytes[start + at] = std::byte{0};
      }
    }
  }
}

TEST(IsZero, IgnoresNeighbours) {
  std::vector<std::byte> bytes(600, std::byte{1});
  std::fill(bytes.begin() + 3, bytes.begin() + 590, std::byte{0});
  EXPECT_TRUE(is_zero(ByteSpan(bytes).subspan(3, 587)));
}

TEST(ZeroRun, ReportsWholeUnitsOfOneKind) {
  std::vector<std::byte> bytes(8 * 512, std::byte{0});
  bytes[3 * 512 + 511] = std::byte{1};
  bytes[4 * 512] = std::byte{1};
  bool zero = false;
  EXPECT_EQ(zero_run(bytes, 512, &zero), 3U * 512);
  EXPECT_TRUE(zero);
  EXPECT_EQ(zero_run(ByteSpan(bytes).subspan(3 * 512), 512, &zero), 2U * 512);
  EXPECT_FALSE(zero);
  EXPECT_EQ(zero_run(ByteSpan(bytes).subspan(5 * 512), 512, &zero), 3U * 512);
  EXPECT_TRUE(zero);
}

TEST(ZeroRun, LastUnitMayBeShort) {
  std::vector<std::byte> bytes(1000, std::byte{0});
  bool zero = false;
  EXPECT_EQ(zero_run(bytes, 512, &zero), 1000U);
  EXPECT_TRUE(zero);
  bytes[999] = std::byte{1};
  EXPECT_EQ(zero_run(bytes, 512, &zero), 512U);
  EXPECT_TRUE(zero);
  EXPECT_EQ(zero_run(ByteSpan(bytes).subspan(512), 512, &zero), 488U);
  EXPECT_FALSE(zero);
}

TEST(ZeroRun, AgreesWithCountingByHand) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(16384);
  for (int round = 0; round < 200; ++round) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    for (int i = 0; i < round % 12; ++i) bytes[random() % bytes.size()] = std::byte{0xff};
    const size_t unit = size_t{512} << (random() % 4);
    size_t at = 0;
    while (at < bytes.size()) {
      bool zero = false;
      const size_t run = zero_run(ByteSpan(bytes).subspan(at), unit, &zero);
      ASSERT_GT(run, 0U);
      ASSERT_EQ(run % unit, 0U);
      for (size_t unit_at = at; unit_at < at + run; unit_at += unit) {
        const bool all = std::all_of(bytes.begin() + unit_at, bytes.begin() + unit_at + unit,
                                     [](std::byte byte) { return byte == std::byte{0}; });
        ASSERT_EQ(all, zero);
      }
      if (at + run < bytes.size()) {
        const bool next = is_zero(ByteSpan(bytes).subspan(at + run, unit));
        ASSERT_NE(next, zero);
      }
      at += run;
    }
  }
}

}  // namespace
}  // namespace cairn
