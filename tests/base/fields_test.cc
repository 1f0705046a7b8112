#include "base/fields.h"

#include <gtest/gtest.h>

#include <vector>

namespace cairn {
namespace {

struct Sample {
  uint8_t kind = 0;
  uint16_t parts = 0;
  uint32_t length = 0;
  uint64_t offset = 0;
};

constexpr auto kBig = big_endian_fields(Field(0, &Sample::kind), Field(2, &Sample::parts),
                                        Field(4, &Sample::length), Field(8, &Sample::offset));
constexpr auto kLittle = little_endian_fields(Field(0, &Sample::kind), Field(2, &Sample::parts),
                                              Field(4, &Sample::length), Field(8, &Sample::offset));
const Sample kSample{0x11, 0x2233, 0x4455'6677, 0x8899'aabb'ccdd'eeff};

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> result;
  for (const int value : values) result.push_back(static_cast<std::byte>(value));
  return result;
}

template <class Table>
void expect(const Table& table, const std::vector<std::byte>& wanted) {
  std::vector<std::byte> stored(16, std::byte{0x5a});
  table.store(stored, kSample);
  EXPECT_EQ(stored, wanted);
  Sample loaded;
  table.load(wanted, loaded);
  EXPECT_EQ(loaded.kind, kSample.kind);
  EXPECT_EQ(loaded.parts, kSample.parts);
  EXPECT_EQ(loaded.length, kSample.length);
  EXPECT_EQ(loaded.offset, kSample.offset);
}

// What is between the fields stays as it was.
TEST(Fields, AreStoredAndLoadedAtTheirOffsets) {
  expect(kBig, bytes({0x11, 0x5a, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc,
                      0xdd, 0xee, 0xff}));
  expect(kLittle, bytes({0x11, 0x5a, 0x33, 0x22, 0x77, 0x66, 0x55, 0x44, 0xff, 0xee, 0xdd, 0xcc,
                         0xbb, 0xaa, 0x99, 0x88}));
}

TEST(Fields, OutsideOfTheBytesAreRefused) {
  std::vector<std::byte> cut(15);
  Sample sample;
  EXPECT_THROW(kBig.load(cut, sample), Error);
  EXPECT_THROW(kLittle.store(cut, sample), Error);
}

}  // namespace
}  // namespace cairn
