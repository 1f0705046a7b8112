#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace cairn {
namespace {

TEST(Crc32c, IsThatOfTheStandard) {
  // RFC 3720, B.4, and the check value of the catalogue of CRCs.
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32)), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(Crc32c, TheInstructionAgreesWithTheTables) {
  std::minstd_rand random;
  std::vector<std::byte> bytes(300);
  for (std::byte& each : bytes) each = static_cast<std::byte>(random());
  for (size_t begin = 0; begin < 9; ++begin)
    for (size_t length = 0; begin + length <= bytes.size(); ++length) {
      const ByteSpan part = ByteSpan(bytes).subspan(begin, length);
      ASSERT_EQ(crc32c(part), crc32c_by_tables(part)) << begin << "+" << length;
      const size_t cut = length / 3;
      ASSERT_EQ(crc32c(part), crc32c(part.subspan(cut), crc32c(part.first(cut))));
    }
}

}  // namespace
}  // namespace cairn
