#include "base/base.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/large_buffer.h"

namespace cairn {
namespace {

uint64_t size_of(std::string_view text, SizeError expected = SizeError::kNone) {
  uint64_t bytes = 0;
  EXPECT_EQ(parse_size(text, &bytes), expected) << text;
  return bytes;
}

TEST(Size, ReadsWhatQemuReads) {
  EXPECT_EQ(size_of("1.5k"), 1536u);
  EXPECT_EQ(size_of("010"), 10u);
  EXPECT_EQ(size_of("0x400"), 1024u);
  EXPECT_EQ(size_of("0x1b"), 27u);
  EXPECT_EQ(size_of(".5M"), 524288u);
  EXPECT_EQ(size_of("1.M"), 1048576u);
  EXPECT_EQ(size_of("512.0"), 512u);
  EXPECT_EQ(size_of("1.0001k"), 1024u);
  EXPECT_EQ(size_of(" +7G"), uint64_t{7} << 30);
  EXPECT_EQ(size_of("1.5e"), uint64_t{3} << 59);
  for (const char* wrong : {"", "1kB", "0b100", "1e3", "0x", "0x4M", "1.7", "k", "1 k", "1k "})
    size_of(wrong, SizeError::kSyntax);
  for (const char* wide : {"-1", "-0", "16e", "18446744073709551616"})
    size_of(wide, SizeError::kRange);
}

TEST(Size, IsShownWithThreeDigits) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1024000), "0.977 MiB");
  EXPECT_EQ(human_size(2560), "2.5 KiB");
  EXPECT_EQ(human_size(10514432), "10 MiB");
  EXPECT_EQ(human_size(uint64_t{1} << 60), "1 EiB");
}

TEST(Value, ReadsAndPrintsJson) {
  const Value value =
      Value::parse(R"({"driver":'qcow2',"file":{"filename":"a\u00e9"},"x":[1,true,null,-2.5]})");
  EXPECT_EQ(value.find("driver")->scalar_text(), "qcow2");
  const Value again = Value::parse(value.compact());
  EXPECT_EQ(again.compact(), value.compact());
  EXPECT_EQ(Value::array().pretty(), "[\n]");
  for (const char* wrong :
       {"", "{", "{\"a\":1,\"a\":2}", "{\"a\"}", "[1,]", "{} {}", "\"\\x\"", "nul"})
    EXPECT_THROW(Value::parse(wrong), Error) << wrong;
}

TEST(Value, DeepNestingIsRefusedNotFollowed) {
  EXPECT_THROW(Value::parse(std::string(1'000'000, '[')), Error);
}

TEST(Options, ListsHaveDoubledCommasAndBareWords) {
  const Options options = Options::parse_list("a=1,b=x,,y,c,nod,e=");
  EXPECT_EQ(options.string("a"), "1");
  EXPECT_EQ(options.string("b"), "x,y");
  EXPECT_EQ(options.boolean("c"), true);
  EXPECT_EQ(options.boolean("d"), false);
  EXPECT_EQ(options.string("e"), "");
  EXPECT_EQ(options.number("a"), 1u);
  EXPECT_THROW(options.boolean("b"), Error);
  EXPECT_THROW(options.number("b"), Error);
}

TEST(Options, TreesAreTakenOut) {
  Options options = Options::from_value(
      Value::parse(R"({"driver":"raw","file":{"driver":"file","filename":"x"}})"));
  const Options file = options.take_tree("file");
  EXPECT_EQ(file.string("filename"), "x");
  EXPECT_FALSE(options.has_tree("file"));
  EXPECT_EQ(options.unused(), std::vector<std::string>{"driver"});
}

TEST(Bytes, AccessOutsideThrows) {
  std::vector<std::byte> bytes(7);
  store_be<uint32_t>(bytes, 3, 0x01020304);
  EXPECT_EQ(load_be<uint32_t>(bytes, 3), 0x01020304u);
  EXPECT_EQ(load_le<uint32_t>(bytes, 3), 0x04030201u);
  EXPECT_THROW(load_be<uint32_t>(bytes, 4), Error);
  EXPECT_THROW(load_be<uint64_t>(bytes, 0), Error);
  EXPECT_THROW(load_be<uint16_t>(bytes, SIZE_MAX), Error);
}

TEST(Bytes, ZeroRunsAreFoundAtEveryLengthAndAlignment) {
  std::vector<std::byte> bytes(9000);
  EXPECT_TRUE(is_zero(bytes));
  for (size_t at = 0; at < bytes.size(); at += 13) {
    bytes[at] = std::byte{1};
    EXPECT_FALSE(is_zero(bytes)) << at;
    EXPECT_TRUE(is_zero(ByteSpan(bytes).first(at))) << at;
    EXPECT_TRUE(is_zero(ByteSpan(bytes).subspan(at + 1))) << at;
    bytes[at] = std::byte{0};
  }
  bytes[4096] = std::byte{1};
  bool zero = false;
  EXPECT_EQ(zero_run(bytes, 4096, &zero), 4096u);
  EXPECT_TRUE(zero);
  EXPECT_EQ(zero_run(ByteSpan(bytes).subspan(4096), 4096, &zero), 4096u);
  EXPECT_FALSE(zero);
  EXPECT_EQ(zero_run(ByteSpan(bytes).subspan(8192), 4096, &zero), bytes.size() - 8192);
  EXPECT_TRUE(zero);
}

TEST(Arith, OverflowIsNoResult) {
  EXPECT_FALSE(checked_add(UINT64_MAX, 1));
  EXPECT_FALSE(checked_mul(uint64_t{1} << 33, uint64_t{1} << 31));
  EXPECT_EQ(checked_mul(3, 4), 12u);
  EXPECT_EQ(align_up(513, 512), 1024u);
  EXPECT_EQ(div_ceil(UINT64_MAX, 512), UINT64_MAX / 512 + 1);
}

TEST(LargeBuffer, IsAlignedZeroAndMoves) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{2} << 20, (size_t{4} << 20) + 1}) {
    LargeBuffer buffer(size);
    const MutableByteSpan bytes = buffer.span();
    ASSERT_EQ(bytes.size(), size);
    const auto place = reinterpret_cast<uintptr_t>(bytes.data());
    EXPECT_TRUE(is_aligned(place, size == 2 << 20 ? 2 << 20 : 4096)) << size;
    EXPECT_TRUE(is_zero(bytes));
    std::fill(bytes.begin(), bytes.end(), std::byte{7});
    LargeBuffer other(std::move(buffer));
    EXPECT_EQ(other.span().data(), bytes.data());
    buffer = std::move(other);
    EXPECT_EQ(buffer.span().back(), std::byte{7});
  }
  EXPECT_TRUE(LargeBuffer().span().empty());
}

}  // namespace
}  // namespace cairn
