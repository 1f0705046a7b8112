#include "export/vhost_user/split_ring.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "base/own_fd.h"
#include "export/vhost_user/inflight.h"

namespace cairn::vhost_user {
namespace {

constexpr uint64_t kGuest = 0x100000000, kUser = 0x7f0000000000, kBytes = 1 << 20;
constexpr uint32_t kSize = 8;
constexpr uint64_t kAvailable = 0x1000, kUsed = 0x2000;

// A guest with one ring at the beginning of its memory.
class SplitRingTest : public ::testing::Test {
 protected:
  SplitRingTest() : file_(::memfd_create("guest", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(file_.get(), kBytes), 0);
    const MemoryRegion region{
        .guest_address = kGuest, .size = kBytes, .user_address = kUser, .file_offset = 0};
    memory_.add(region, file_.get());
    bytes_ = memory_.from_guest(kGuest, kBytes);
  }
  SplitRing ring(uint64_t features) {
    RingSetup setup{.size = kSize, .addresses = {}, .features = features};
    setup.addresses.descriptors = kUser;
    setup.addresses.available = kUser + kAvailable;
    setup.addresses.used = kUser + kUsed;
    return SplitRing(memory_, nullptr, setup);
  }
  void put(uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    store_le<uint64_t>(bytes_, index * 16u, address);
    store_le<uint32_t>(bytes_, index * 16u + 8, length);
    store_le<uint16_t>(bytes_, index * 16u + 12, flags);
    store_le<uint16_t>(bytes_, index * 16u + 14, next);
  }
  void set_available(uint16_t index) { store_le<uint16_t>(bytes_, kAvailable + 2, index); }
  void set_used_event(uint16_t index) {
    store_le<uint16_t>(bytes_, kAvailable + 4 + 2 * kSize, index);
  }

  OwnFd file_;
  GuestMemory memory_;
  MutableByteSpan bytes_;
};

TEST_F(SplitRingTest, GivesChainsInTheOrderInWhichTheyWereMadeAvailable) {
  SplitRing ring = this->ring(0);
  put(3, kGuest + 0x3000, 16, 1, 5);
  put(5, kGuest + 0x4000, 512, 3, 1);
  put(1, kGuest + 0x5000, 1, 2, 0);
  store_le<uint16_t>(bytes_, kAvailable + 4, 3);
  EXPECT_EQ(ring.available(), 0u);
  set_available(1);
  ASSERT_EQ(ring.available(), 1u);
  Chain chain;
  ring.read_chain(ring.next_head(), &chain);
  ASSERT_EQ(chain.readable.size(), 1u);
  ASSERT_EQ(chain.writable.size(), 2u);
  EXPECT_EQ(chain.writable[0].data, bytes_.data() + 0x4000);
  EXPECT_EQ(chain.writable[0].guest_address, kGuest + 0x4000);
  EXPECT_EQ(ring.available(), 0u);
  ring.push_used(3, 513);
  EXPECT_EQ(load_le<uint16_t>(bytes_, kUsed + 2), 1);
  EXPECT_EQ(load_le<uint32_t>(bytes_, kUsed + 4), 3u);
  EXPECT_EQ(load_le<uint32_t>(bytes_, kUsed + 8), 513u);
}

TEST_F(SplitRingTest, WakesTheGuestWhereItAskedForIt) {
  SplitRing ring = this->ring(feature::kEventIndex);
  set_used_event(1);
  EXPECT_FALSE(ring.must_notify());
  ring.push_used(0, 0);
  EXPECT_FALSE(ring.must_notify());
  ring.push_used(0, 0);
  EXPECT_TRUE(ring.must_notify());
  EXPECT_FALSE(ring.must_notify());
  ring.push_used(0, 0);
  EXPECT_FALSE(ring.must_notify());
  // A batch that passes the index wakes it too.
  set_used_event(4);
  for (int i = 0; i < 5; ++i) ring.push_used(0, 0);
  EXPECT_TRUE(ring.must_notify());
}

TEST_F(SplitRingTest, IndexesWrap) {
  store_le<uint16_t>(bytes_, kUsed + 2, 65535);
  SplitRing ring = this->ring(feature::kEventIndex);
  ring.set_next_available(65535);
  set_available(1);
  EXPECT_EQ(ring.available(), 2u);
  ring.next_head();
  ring.next_head();
  EXPECT_EQ(ring.next_available(), 1);
  set_used_event(65535);
  ring.push_used(0, 0);
  EXPECT_EQ(load_le<uint16_t>(bytes_, kUsed + 2), 0);
  EXPECT_TRUE(ring.must_notify());
  ring.ask_for_kicks(true);
  EXPECT_EQ(load_le<uint16_t>(bytes_, kUsed + 4 + 8 * kSize), 1);
}

TEST_F(SplitRingTest, AFileThatIsCutReadsAsZeroesAndIsKnown) {
  SplitRing ring = this->ring(0);
  set_available(1);
  EXPECT_EQ(ring.available(), 1u);
  EXPECT_FALSE(memory_.broken());
  ASSERT_EQ(::ftruncate(file_.get(), 0), 0);
  EXPECT_EQ(ring.available(), 0u);
  EXPECT_TRUE(memory_.broken());
}

TEST_F(SplitRingTest, MemoryIsFoundByBothAddressesAndNowhereElse) {
  EXPECT_EQ(memory_.from_user(kUser + 1, kBytes - 1), bytes_.data() + 1);
  EXPECT_EQ(memory_.from_user(kUser + 1, kBytes), nullptr);
  EXPECT_EQ(memory_.from_user(kUser - 1, 2), nullptr);
  EXPECT_EQ(memory_.from_user(kUser + kBytes, 0), nullptr);
  EXPECT_EQ(memory_.from_guest(kGuest + kBytes - 1, 100).size(), 1u);
  EXPECT_TRUE(memory_.from_guest(kGuest + kBytes, 1).empty());
}

TEST(Inflight, WhatWasTakenAndNotAnsweredIsFoundInItsOrder) {
  InflightArea area;
  const OwnFd file = InflightRecord::create(2, kSize, &area);
  const InflightRecord record(file.get(), area);
  {
    InflightQueue queue = record.queue(1, kSize);
    EXPECT_TRUE(queue.recover(100).empty());
    for (const int head : {5, 2, 7}) queue.begin(static_cast<uint16_t>(head));
    queue.before_used(2);
    queue.after_used(2, 101);
    // Killed after the used ring had it, before the record did.
    queue.before_used(5);
  }
  InflightQueue again = record.queue(1, kSize);
  EXPECT_EQ(again.recover(102), std::vector<uint16_t>({7}));
  again.begin(1);
  EXPECT_EQ(again.recover(102), std::vector<uint16_t>({7, 1}));
  EXPECT_FALSE(record.queue(2, kSize));
  EXPECT_FALSE(record.queue(0, kSize * 2));
}

}  // namespace
}  // namespace cairn::vhost_user
