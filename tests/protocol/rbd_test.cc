#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "protocol/rbd/extent_map.h"
#include "protocol/rbd/location.h"

namespace cairn::rbd {
namespace {

using Change = ExtentMap::Change;
constexpr uint64_t kMib = 1 << 20;

TEST(RbdName, HasPoolImageAndMore) {
  const Location plain = parse_name("rbd:pool/image");
  EXPECT_EQ(plain.pool, "pool");
  EXPECT_EQ(plain.image, "image");
  EXPECT_EQ(plain.name_space, "");
  EXPECT_FALSE(plain.snapshot || plain.conf || plain.user);
  const Location full = parse_name("rbd:a/b/c@d:id=me:conf=/x\\:y:mon_host=h\\:1");
  EXPECT_EQ(full.name_space, "b");
  EXPECT_EQ(full.image, "c");
  EXPECT_EQ(full.snapshot, "d");
  EXPECT_EQ(full.user, "me");
  EXPECT_EQ(full.conf, "/x:y");
  EXPECT_EQ(full.settings, (std::vector<Setting>{{"mon_host", "h:1"}}));
}

TEST(RbdName, BackslashesTakeMeanings) {
  const Location name = parse_name("rbd:p\\/q/i\\@m\\:g:k\\=1=v=w\\\\");
  EXPECT_EQ(name.pool, "p/q");
  EXPECT_EQ(name.image, "i@m:g");
  EXPECT_EQ(name.settings, (std::vector<Setting>{{"k=1", "v=w\\"}}));
  EXPECT_EQ(split_settings(join_settings(name.settings)), name.settings);
}

TEST(RbdName, NeedsAPool) {
  for (const char* name : {"rbd:", "rbd:x", "rbd:/x", "rb:p/i"})
    EXPECT_THROW(parse_name(name), Error);
  EXPECT_THROW(parse_name("rbd:p/i:word"), Error);
}

class Map : public testing::Test {
 protected:
  void learn(std::initializer_list<std::pair<uint64_t, uint64_t>> ranges) {
    map_.begin();
    for (const auto& [offset, length] : ranges) map_.add(offset, length);
    map_.seal();
  }
  // The runs of the first 16 MiB: "data 0+4 …", in MiB.
  std::string runs() const {
    std::string text;
    for (uint64_t at = 0; at < 16 * kMib;) {
      const ExtentMap::Run run = map_.at(at, 16 * kMib - at);
      if (run.data)
        text += std::to_string(at / kMib) + "+" + std::to_string(run.length / kMib) + " ";
      at += run.length;
    }
    return text;
  }
  ExtentMap map_;
};

TEST_F(Map, AllIsDataUntilItIsKnown) {
  EXPECT_EQ(runs(), "0+16 ");
  map_.begin();
  EXPECT_EQ(runs(), "0+16 ");
  map_.seal();
  EXPECT_EQ(runs(), "");
}

TEST_F(Map, TakesRangesInAnyOrderAndShape) {
  learn({{8 * kMib, kMib}, {0, 2 * kMib}, {kMib, 2 * kMib}, {3 * kMib, kMib}, {5 * kMib, 0}});
  EXPECT_EQ(runs(), "0+4 8+1 ");
  learn({{15 * kMib, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}, {UINT64_MAX - 1, 1}});
  EXPECT_EQ(runs(), "15+1 ");
}

TEST_F(Map, FollowsWritesAndZeroes) {
  learn({{0, 8 * kMib}});
  { const Change change(map_, Change::Kind::kWrite, 10 * kMib, kMib); }
  EXPECT_EQ(runs(), "0+8 10+1 ");
  {
    Change change(map_, Change::Kind::kZero, 2 * kMib, 2 * kMib);
    EXPECT_EQ(runs(), "0+8 10+1 ");
    change.done();
  }
  EXPECT_EQ(runs(), "0+2 4+4 10+1 ");
  { const Change failed(map_, Change::Kind::kZero, 0, 8 * kMib); }
  EXPECT_EQ(runs(), "0+2 4+4 10+1 ");
}

TEST_F(Map, AWriteBesideAZeroingWins) {
  learn({{0, 8 * kMib}});
  {
    Change zeroes(map_, Change::Kind::kZero, 0, 4 * kMib);
    { const Change write(map_, Change::Kind::kWrite, kMib, 1); }
    zeroes.done();
  }
  EXPECT_EQ(runs(), "0+8 ");
  {
    const Change write(map_, Change::Kind::kWrite, kMib, 1);
    Change zeroes(map_, Change::Kind::kZero, 0, 4 * kMib);
    zeroes.done();
  }
  EXPECT_EQ(runs(), "0+8 ");
}

TEST_F(Map, WritesUnderWayAreNotLostWhileItIsLearnt) {
  const Change before(map_, Change::Kind::kWrite, 2 * kMib, kMib);
  map_.begin();
  { const Change during(map_, Change::Kind::kWrite, 4 * kMib, kMib); }
  map_.seal();
  EXPECT_EQ(runs(), "2+1 4+1 ");
}

TEST_F(Map, ManyRangesAreJoined) {
  map_.begin();
  for (uint64_t i = 0; i < 300'000; ++i) map_.add(i * 16384, 1);
  map_.seal();
  for (uint64_t i = 0; i < 300'000; i += 49'999) EXPECT_TRUE(map_.at(i * 16384, 1).data) << i;
}

}  // namespace
}  // namespace cairn::rbd
