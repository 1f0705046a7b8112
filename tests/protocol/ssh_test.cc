// Frames of SFTP, names of files on SSH servers, and hashes of keys.
#include <gtest/gtest.h>

#include <cerrno>

#include "base/error.h"
#include "protocol/ssh/frames.h"
#include "protocol/ssh/host_key.h"
#include "protocol/ssh/location.h"

namespace cairn::ssh {
namespace {

TEST(SshFrames, WrittenAndRead) {
  FrameWriter writer(FrameType::kRead, 7);
  const auto frame = writer.string("handle").u64(1ULL << 40).u32(32768).finish();
  FrameReader reader(frame);
  EXPECT_EQ(reader.u32(), frame.size() - 4);
  EXPECT_EQ(reader.u8(), 5);
  EXPECT_EQ(reader.u32(), 7U);
  EXPECT_EQ(reader.text(), "handle");
  EXPECT_EQ(reader.u64(), 1ULL << 40);
  EXPECT_EQ(reader.u32(), 32768U);
  EXPECT_TRUE(reader.empty());
  EXPECT_THROW(reader.u8(), Error);
}

TEST(SshFrames, LengthCountsWhatIsSentAfter) {
  const auto frame = FrameWriter(FrameType::kWrite, 7).string("h").u64(0).string_after(9).finish();
  FrameReader reader(frame);
  EXPECT_EQ(reader.u32(), frame.size() - 4 + 9);
}

TEST(SshFrames, AttributesInTheirOrder) {
  FrameWriter writer(FrameType::kAttributes, 1);
  const auto frame = writer.u32(1 | 2 | 4 | 8 | 0x80000000)
                         .u64(4096)
                         .u32(0)
                         .u32(0)
                         .u32(0100644)
                         .u32(1)
                         .u32(99)
                         .u32(1)
                         .string("a")
                         .string("b")
                         .finish();
  FrameReader reader(ByteSpan(frame).subspan(9));
  const Attributes attributes = reader.attributes();
  EXPECT_EQ(attributes.size, 4096U);
  EXPECT_EQ(attributes.permissions, 0100644U);
  EXPECT_EQ(attributes.modified, 99U);
  EXPECT_TRUE(reader.empty());
}

TEST(SshFrames, LimitsAreBounded) {
  const auto limits = [](uint64_t packet, uint64_t read, uint64_t write) {
    FrameWriter writer(FrameType::kExtendedReply, 1);
    const auto frame = writer.u64(packet).u64(read).u64(write).u64(0).finish();
    return parse_limits(ByteSpan(frame).subspan(9));
  };
  EXPECT_EQ(limits(262144, 261120, 261120).read, 261120U);
  EXPECT_EQ(limits(UINT64_MAX, UINT64_MAX, UINT64_MAX).write, 255U << 10);
  EXPECT_EQ(limits(0, 0, 0).read, 32U << 10);
  EXPECT_EQ(limits(1025, 1, 1).read, 4U << 10);
  EXPECT_EQ(limits(34000, 261120, 261120).write, 34000U - 1024);
}

TEST(SshFrames, StatusCodes) {
  EXPECT_EQ(errno_of_status(2), ENOENT);
  EXPECT_EQ(errno_of_status(3), EACCES);
  EXPECT_EQ(errno_of_status(12345), EIO);
}

TEST(SshLocation, Parts) {
  std::string warned;
  const auto warn = [&](const std::string& line) { warned += line + "\n"; };
  const Options parts =
      parse_uri("ssh://me:pw@[fe80::1]:2222/a%20b/c?host_key_check=no&x=1#part", warn);
  EXPECT_EQ(parts.string("user"), "me");
  EXPECT_EQ(parts.string("host"), "fe80::1");
  EXPECT_EQ(parts.string("port"), "2222");
  EXPECT_EQ(parts.string("path"), "/a b/c");
  EXPECT_EQ(parts.string("host_key_check"), "no");
  EXPECT_EQ(warned,
            "A password in the URI is not used; see the option password-secret\n"
            "Unsupported parameter 'x' in URI\n");
  EXPECT_EQ(make_uri("me", "fe80::1", "22", "/a?b", "no"),
            "ssh://me@[fe80::1]:22/a%3Fb?host_key_check=no");
  for (const char* text : {"ssh:x", "ssh://", "ssh:///x", "ssh://h", "ssh://h:x/y",
                           "ssh://h:70000/y", "ssh://[::1/x", "ssh://h/a%00b"})
    EXPECT_THROW(parse_uri(text, warn), Error) << text;
}

TEST(SshHostKey, Hashes) {
  const HostKeyCheck colons = HostKeyCheck::parse("md5:00:11:aA:ff");
  EXPECT_EQ(colons.mode, HostKeyCheck::Mode::kHash);
  EXPECT_TRUE(colons.matches({std::byte{0}, std::byte{0x11}, std::byte{0xaa}, std::byte{0xff}}));
  EXPECT_FALSE(colons.matches({std::byte{0}, std::byte{0x11}, std::byte{0xaa}}));
  // What is no hash matches nothing, not even an empty one.
  EXPECT_FALSE(HostKeyCheck::parse("md5:xyz").matches({std::byte{0}}));
  EXPECT_EQ(HostKeyCheck::parse("SHA256:AAAA").hash.size(), 3U);
  EXPECT_EQ(HostKeyCheck::parse("no").mode, HostKeyCheck::Mode::kNone);
  EXPECT_THROW(HostKeyCheck::parse("MD5:00"), Error);
  EXPECT_THROW(HostKeyCheck::parse(""), Error);
}

}  // namespace
}  // namespace cairn::ssh
