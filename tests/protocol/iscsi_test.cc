// What iSCSI units answer: with their real lengths, cut at every byte, and with lengths that lie.
#include <gtest/gtest.h>

#include "protocol/iscsi/answers.h"

namespace cairn::iscsi {
namespace {

std::vector<std::byte> bytes_of_values(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST(IscsiAnswers, Inquiry) {
  Unit unit;
  const auto disk = bytes_of_values({0, 0, 6, 2, 31, 8, 0, 2});
  ASSERT_TRUE(read_inquiry(disk, &unit));
  EXPECT_FALSE(unit.cd);
  EXPECT_TRUE(unit.copies);
  ASSERT_TRUE(read_inquiry(bytes_of_values({5, 0, 6, 2, 31, 0}), &unit));
  EXPECT_TRUE(unit.cd);
  EXPECT_FALSE(unit.copies);
  for (size_t cut = 0; cut < 6; ++cut) EXPECT_FALSE(read_inquiry(ByteSpan(disk).first(cut), &unit));
}

TEST(IscsiAnswers, Modes) {
  Unit unit;
  read_modes(bytes_of_values({3, 0, 0x90, 0}), &unit);
  EXPECT_TRUE(unit.write_protected && unit.fua && !unit.mode_unknown);
  read_modes(bytes_of_values({3, 0, 0x90}), &unit);
  EXPECT_TRUE(!unit.write_protected && !unit.fua && unit.mode_unknown);
}

TEST(IscsiAnswers, Capacity) {
  Unit unit;
  const auto usual = bytes_of_values({0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 2, 0, 0, 0, 0xc0, 0});
  ASSERT_TRUE(read_capacity16(usual, &unit));
  EXPECT_EQ(unit.blocks, 8192u);
  EXPECT_EQ(unit.block_bytes, 512u);
  EXPECT_TRUE(unit.thin && unit.unmapped_zero);
  EXPECT_FALSE(read_capacity16(ByteSpan(usual).first(11), &unit));
  // Nothing is said of mapping.
  ASSERT_TRUE(read_capacity16(ByteSpan(usual).first(12), &unit));
  EXPECT_FALSE(unit.thin || unit.unmapped_zero);
  EXPECT_EQ(blocks_of(bytes_of_values({255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 2, 0})),
            UINT64_MAX);
  EXPECT_EQ(blocks_of(std::vector<std::byte>(32)), 0u);
  ASSERT_TRUE(read_capacity10(bytes_of_values({255, 255, 255, 255, 0, 0, 2, 0}), &unit));
  EXPECT_EQ(unit.blocks, uint64_t{1} << 32);
  EXPECT_FALSE(read_capacity10(bytes_of_values({0, 0, 0, 1, 0, 0, 2}), &unit));
}

TEST(IscsiAnswers, Pages) {
  std::vector<std::byte> limits(64);
  store_be<uint8_t>(limits, 1, 0xb0);
  store_be<uint16_t>(limits, 2, 60);
  store_be<uint32_t>(limits, 8, 1000);
  store_be<uint32_t>(limits, 20, 2000);
  store_be<uint32_t>(limits, 28, 8);
  store_be<uint64_t>(limits, 36, 3000);
  Unit unit;
  read_limits(page_of(limits, 0xb0), &unit);
  EXPECT_EQ(unit.most_transfer, 1000u);
  EXPECT_EQ(unit.most_unmap, 2000u);
  EXPECT_EQ(unit.unmap_unit, 8u);
  EXPECT_EQ(unit.most_same, 3000u);
  EXPECT_TRUE(page_of(limits, 0xb2).empty());
  EXPECT_EQ(page_bytes(limits), 64u);
  // It says more than there is.
  store_be<uint16_t>(limits, 2, 0xffff);
  EXPECT_EQ(page_of(limits, 0xb0).size(), 60u);
  for (size_t cut = 0; cut < limits.size(); ++cut)
    read_limits(page_of(ByteSpan(limits).first(cut), 0xb0), &unit);
  read_provisioning_page(page_of(bytes_of_values({0, 0xb2, 0, 4, 0, 0xa0, 0, 0}), 0xb2), &unit);
  EXPECT_TRUE(unit.unmap && !unit.same_unmaps && unit.same10_unmaps);
}

TEST(IscsiAnswers, Designators) {
  auto list = bytes_of_values({2, 1,    0, 8, 1, 1, 1, 1, 1, 1, 1, 1,         // a vendor's own
                               1, 2,    0, 8, 2, 2, 2, 2, 2, 2, 2, 2,         // EUI-64
                               1, 0x13, 0, 8, 4, 4, 4, 4, 4, 4, 4, 4,         // of the port
                               1, 3,    0, 8, 3, 3, 3, 3, 3, 3, 3, 3,         // NAA
                               1, 3,    0, 4, 9, 9, 9, 9, 1, 3, 0, 255, 0});  // too short; too long
  Unit unit;
  read_designators(list, &unit);
  EXPECT_EQ(unit.designator.type, 3);
  EXPECT_EQ(unit.designator.bytes, std::vector<std::byte>(8, std::byte{3}));
  Unit other;
  read_designators(ByteSpan(list).first(24), &other);
  EXPECT_EQ(other.designator.type, 2);
  Unit none;
  read_designators(ByteSpan(list).first(12), &none);
  EXPECT_TRUE(none.designator.bytes.empty());
}

TEST(IscsiAnswers, Provisioning) {
  std::vector<std::byte> answer(8 + 2 * 16);
  store_be<uint32_t>(answer, 0, 36);
  store_be<uint64_t>(answer, 8, 100);
  store_be<uint32_t>(answer, 16, 8);
  store_be<uint64_t>(answer, 24, 108);
  store_be<uint32_t>(answer, 32, 16);
  store_be<uint8_t>(answer, 36, 1);
  auto runs = read_provisioning(answer);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_TRUE(runs[0].block == 100 && runs[0].count == 8 && runs[0].mapped);
  EXPECT_TRUE(runs[1].block == 108 && runs[1].count == 16 && !runs[1].mapped);
  store_be<uint32_t>(answer, 0, 0xffffffff);
  EXPECT_EQ(read_provisioning(answer).size(), 2u);
  EXPECT_EQ(read_provisioning(ByteSpan(answer).first(39)).size(), 1u);
  store_be<uint32_t>(answer, 0, 4);
  EXPECT_TRUE(read_provisioning(answer).empty());
}

}  // namespace
}  // namespace cairn::iscsi
