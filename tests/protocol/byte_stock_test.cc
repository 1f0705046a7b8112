#include "protocol/byte_stock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace cairn {
namespace {

TEST(ByteStock, NobodyElseHasTheBytes) {
  std::vector<std::unique_ptr<ByteStock::Bytes>> all;
  for (int round = 0; round < 2; ++round) {
    std::set<const std::byte*> places;
    for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{40'000}, size_t{3} << 20})
      for (int i = 0; i < 4; ++i) {
        all.push_back(std::make_unique<ByteStock::Bytes>(size));
        const MutableByteSpan bytes = all.back()->span();
        ASSERT_EQ(bytes.size(), size);
        std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(all.size()));
        if (size != 0) {
          EXPECT_TRUE(places.insert(bytes.data()).second);
        }
      }
    for (size_t i = 0; i < all.size(); ++i)
      EXPECT_EQ(std::ranges::count(all[i]->span(), static_cast<std::byte>(i + 1)),
                all[i]->span().size());
    all.clear();
  }
}

TEST(ByteStock, WhatComesBackIsLentAgain) {
  std::optional<ByteStock::Bytes> bytes;
  bytes.emplace(size_t{1} << 20);
  const std::byte* const first = bytes->span().data();
  bytes.reset();
  bytes.emplace((size_t{1} << 20) - 1);
  EXPECT_EQ(bytes->span().data(), first);
}

}  // namespace
}  // namespace cairn
