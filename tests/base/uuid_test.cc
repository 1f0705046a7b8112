#include "base/uuid.h"

#include <gtest/gtest.h>

#include <vector>

namespace cairn {
namespace {

TEST(Uuid, TextAndGuidOrder) {
  const std::string text = "00112233-4455-6677-8899-aabbccddeeff";
  const Uuid uuid = Uuid::parse("{00112233-4455-6677-8899-AABBCCDDEEFF}");
  EXPECT_EQ(uuid.text(), text);
  std::vector<std::byte> disk(20);
  uuid.store_guid(disk, 2);
  EXPECT_EQ(load_le<uint32_t>(disk, 2), 0x00112233u);
  EXPECT_EQ(load_le<uint16_t>(disk, 6), 0x4455u);
  EXPECT_EQ(disk[10], std::byte{0x88});
  EXPECT_EQ(Uuid::load_guid(disk, 2), uuid);
  EXPECT_THROW(uuid.store_guid(disk, 5), Error);
}

TEST(Uuid, RandomOnesDifferAndSayTheirVersion) {
  const Uuid one = Uuid::random();
  EXPECT_NE(one, Uuid::random());
  EXPECT_EQ(one.text()[14], '4');
  EXPECT_FALSE(one.is_null());
}

TEST(Uuid, RefusesWhatIsNone) {
  for (const char* text :
       {"", "00112233-4455-6677-8899-aabbccddeef", "00112233x4455-6677-8899-aabbccddeeff",
        "g0112233-4455-6677-8899-aabbccddeeff", "{00112233-4455-6677-8899-aabbccddeeff"})
    EXPECT_THROW(Uuid::parse(text), Error) << text;
}

}  // namespace
}  // namespace cairn
