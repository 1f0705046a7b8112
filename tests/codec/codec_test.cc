#include "codec/codec.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace cairn {
namespace {

std::vector<std::byte> text_of_a_cluster() {
  std::vector<std::byte> plain(65536);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i / 100 % 7);
  return plain;
}

TEST(Codec, GivesBackWhatItCompressed) {
  const std::vector<std::byte> plain = text_of_a_cluster();
  for (const Compression kind : {Compression::kDeflate, Compression::kZstd}) {
    const LevelRange levels = levels_of(kind);
    for (const int level : {0, levels.least, levels.most}) {
      std::vector<std::byte> encoded = compress(kind, plain, plain.size(), level);
      ASSERT_FALSE(encoded.empty()) << level;
      EXPECT_LT(encoded.size(), plain.size() / 10);
      // What follows is not read.
      encoded.resize(encoded.size() + 17, std::byte{0xff});
      std::vector<std::byte> out(plain.size());
      decompress(kind, encoded, out);
      EXPECT_TRUE(out == plain) << level;
    }
  }
}

TEST(Codec, GivesNothingWhenThereIsNoRoom) {
  const std::vector<std::byte> plain = text_of_a_cluster();
  for (const Compression kind : {Compression::kDeflate, Compression::kZstd})
    EXPECT_TRUE(compress(kind, plain, 16).empty());
  EXPECT_TRUE(compress_zlib(plain, 16).empty());
}

TEST(Codec, RefusesWhatIsCut) {
  const std::vector<std::byte> plain = text_of_a_cluster();
  std::vector<std::byte> out(plain.size());
  for (const Compression kind : {Compression::kDeflate, Compression::kZstd}) {
    const std::vector<std::byte> encoded = compress(kind, plain, plain.size());
    for (const size_t length : {size_t{0}, size_t{1}, encoded.size() / 2})
      EXPECT_THROW(decompress(kind, ByteSpan(encoded).first(length), out), Error) << length;
  }
  const std::vector<std::byte> encoded = compress_zlib(plain, plain.size());
  EXPECT_EQ(decompress_zlib(encoded, out), plain.size());
  EXPECT_TRUE(out == plain);
  EXPECT_THROW(decompress_zlib(ByteSpan(encoded).first(encoded.size() - 1), out), Error);
  EXPECT_THROW(decompress_zlib(encoded, MutableByteSpan(out).first(out.size() - 1)), Error);
}

TEST(Codec, LevelsHaveARange) {
  for (const Compression kind : {Compression::kDeflate, Compression::kZstd}) {
    const auto most = static_cast<uint64_t>(levels_of(kind).most);
    EXPECT_NO_THROW(check_level(kind, most));
    EXPECT_THROW(check_level(kind, most + 1), Error);
  }
}

}  // namespace
}  // namespace cairn
