// Messages of Sheepdog's protocol, inodes, and names of VDIs.
#include <gtest/gtest.h>

#include "base/error.h"
#include "protocol/sheepdog/location.h"
#include "protocol/sheepdog/wire.h"

namespace cairn::sheepdog {
namespace {

std::string hex(ByteSpan bytes) {
  std::string out;
  for (const std::byte one : bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out += kDigits[static_cast<unsigned>(one) >> 4];
    out += kDigits[static_cast<unsigned>(one) & 15];
  }
  return out;
}

TEST(SheepdogWire, Requests) {
  Header header = object_header(
      Opcode::kCreateObject,
      {.object = data_object(0xa03907, 5), .copy_from = data_object(0xa03906, 5), .offset = 512});
  set_id(header, 0x11223344);
  set_length(header, 4096);
  EXPECT_EQ(hex(header),
            "01010300000000004433221100100000"
            "050000000739a000050000000639a000"
            "00000000000000000002000000000000");
  header = vdi_header(Opcode::kNewVdi, {.size = 1 << 30,
                                        .vdi = 0xa03907,
                                        .copies = 3,
                                        .copy_policy = 0x11,
                                        .shift = 22,
                                        .snapshot = 1});
  EXPECT_EQ(hex(header),
            "01110100000000000000000000000000"
            "00000040000000000739a00003110016"
            "01000000000000000000000000000000");
  EXPECT_EQ(opcode_of(header), Opcode::kNewVdi);
  EXPECT_EQ(name_data("alice").size(), 256U);
  EXPECT_EQ(name_data("alice", "tag").size(), 512U);
  EXPECT_THROW(name_data(std::string(256, 'a')), Error);
  EXPECT_EQ(inode_object(0xa03907), 0x80a0390700000000U);
}

TEST(SheepdogWire, Responses) {
  std::vector<std::byte> bytes(kHeaderBytes);
  const MutableByteSpan out(bytes);
  store_le<uint8_t>(out, 1, 0x02);
  store_le<uint32_t>(out, 8, 77);
  store_le<uint32_t>(out, 12, 4096);
  store_le<uint32_t>(out, 16, 0x1a);
  store_le<uint64_t>(out, 24, 1ULL << 40 | 3);
  const Response response = Response::decode(bytes);
  EXPECT_EQ(response.opcode, Opcode::kReadObject);
  EXPECT_EQ(response.id, 77U);
  EXPECT_EQ(response.length, 4096U);
  EXPECT_EQ(response.result, Result::kReadOnly);
  EXPECT_TRUE(is_outdated(response.result));
  EXPECT_EQ(response.data_offset, 1ULL << 40 | 3);
  EXPECT_EQ(response.vdi, 3U);
  EXPECT_THROW(Response::decode(ByteSpan(bytes).first(20)), Error);
}

TEST(SheepdogWire, ResultsHaveTheirKinds) {
  const std::pair<uint32_t, ErrorKind> kinds[] = {
      {0x04, ErrorKind::kExists},      {0x07, ErrorKind::kLocked},  {0x08, ErrorKind::kNotFound},
      {0x0e, ErrorKind::kNotFound},    {0x15, ErrorKind::kNoSpace}, {0x16, ErrorKind::kIo},
      {0x14, ErrorKind::kUnsupported}, {0x1234, ErrorKind::kIo}};
  for (const auto& [result, kind] : kinds) try {
      throw_result(static_cast<Result>(result), "x");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << result;
    }
  EXPECT_TRUE(is_passing(Result::kAgain));
  EXPECT_FALSE(is_passing(Result::kSuccess));
}

std::vector<std::byte> inode_bytes() {
  std::vector<std::byte> bytes(kIndexOffset);
  const MutableByteSpan out(bytes);
  store_text(out, 0, "alice");
  store_text(out, 256, "first");
  store_le<uint64_t>(out, 520, 5ULL << 32 | 7);
  store_le<uint64_t>(out, 536, (4ULL << 20) + 1);
  store_le<uint8_t>(out, 554, 3);
  store_le<uint8_t>(out, 555, 22);
  store_le<uint32_t>(out, 556, 2);
  store_le<uint32_t>(out, 560, 0xa03907);
  return bytes;
}

TEST(SheepdogInode, Members) {
  const Inode inode = Inode::decode(inode_bytes());
  inode.check(0xa03907);
  EXPECT_EQ(inode.name, "alice");
  EXPECT_EQ(inode.tag, "first");
  EXPECT_TRUE(inode.is_snapshot());
  EXPECT_EQ(inode.object_bytes(), 4U << 20);
  EXPECT_EQ(inode.object_count(), 2U);
  EXPECT_EQ(inode.snapshot, 2U);
  EXPECT_THROW(inode.check(0xa03908), Error);
}

TEST(SheepdogInode, NonsenseIsRefused) {
  const auto refused = [](size_t at, uint64_t value, size_t bytes) {
    std::vector<std::byte> raw = inode_bytes();
    if (bytes == 8)
      store_le<uint64_t>(MutableByteSpan(raw), at, value);
    else
      store_le<uint8_t>(MutableByteSpan(raw), at, static_cast<uint8_t>(value));
    EXPECT_THROW(Inode::decode(raw).check(0xa03907), Error) << at << " " << value;
  };
  for (const uint64_t shift : {0, 19, 32, 63, 255}) refused(555, shift, 1);
  refused(553, 1, 1);
  refused(536, (4ULL << 40) + 1, 8);
  refused(536, UINT64_MAX, 8);
  EXPECT_THROW(Inode::decode(ByteSpan(inode_bytes()).first(500)), Error);
  std::vector<std::byte> index(8);
  store_le<uint32_t>(MutableByteSpan(index), 4, kVdis - 1);
  EXPECT_EQ(decode_index(index), (std::vector<uint32_t>{0, kVdis - 1}));
  store_le<uint32_t>(MutableByteSpan(index), 4, kVdis);
  EXPECT_THROW(decode_index(index), Error);
}

TEST(SheepdogSettings, RedundancyAndObjectSize) {
  EXPECT_EQ(Redundancy::parse("3").copies, 3);
  EXPECT_EQ(Redundancy::parse("31").policy, 0);
  EXPECT_EQ(Redundancy::parse("2:1").policy, 0x11);
  EXPECT_EQ(Redundancy::parse("2:1").copies, 3);
  EXPECT_EQ(Redundancy::parse("16:15").policy, 0x8f);
  for (const char* text :
       {"", "0", "32", "x", "3:1", "2:0", "2:16", "4:", ":1", "2:1:1", "-1", "1 "})
    EXPECT_THROW(Redundancy::parse(text), Error) << text;
  EXPECT_EQ(shift_of(1 << 20), 20);
  EXPECT_EQ(shift_of(1ULL << 31), 31);
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{1} << 19, uint64_t{3} << 20, uint64_t{1} << 32})
    EXPECT_THROW(shift_of(bytes), Error) << bytes;
}

std::string options_of(std::string_view name) {
  std::string text;
  const Options options = parse_name(name);
  for (const char* key :
       {"server.type", "server.host", "server.port", "server.path", "vdi", "snap-id", "tag"})
    if (const auto value = options.string(key)) text += (text.empty() ? "" : " ") + *value;
  return text;
}

TEST(SheepdogNames, Uris) {
  EXPECT_EQ(options_of("sheepdog:///disk"), "inet localhost 7000 disk");
  EXPECT_EQ(options_of("sheepdog://host/disk"), "inet host 7000 disk");
  EXPECT_EQ(options_of("sheepdog+tcp://host:80/a/b%20c"), "inet host 80 a/b c");
  EXPECT_EQ(options_of("sheepdog://[::1]:7001/disk#tag"), "inet ::1 7001 disk tag");
  EXPECT_EQ(options_of("sheepdog://:7001/disk#12"), "inet localhost 7001 disk 12");
  EXPECT_EQ(options_of("sheepdog:///disk#4294967296"), "inet localhost 7000 disk 4294967296");
  EXPECT_EQ(options_of("sheepdog+unix:///disk?socket=/a%20b#t"), "unix /a b disk t");
  for (const char* name :
       {"sheepdog://", "sheepdog:///", "sheepdog://host", "sheepdog:///d#", "sheepdog:///d?x=1",
        "sheepdog://h:99999/d", "sheepdog://h:x/d", "sheepdog://u@h/d", "sheepdog://[::1/d",
        "sheepdog://[::1]7000/d", "sheepdog+unix:///d",
        "sheepdog+unix:///d?socket=", "sheepdog+unix:///d?socket=a&b=c",
        "sheepdog+unix://h/d?socket=a", "sheepdog:///a%00b", "sheepdog+tcp:disk"})
    EXPECT_THROW(parse_name(name), Error) << name;
  EXPECT_THROW(parse_name("sheepdog:///" + std::string(256, 'a')), Error);
}

TEST(SheepdogNames, OldSpelling) {
  EXPECT_EQ(options_of("sheepdog:disk"), "inet localhost 7000 disk");
  EXPECT_EQ(options_of("sheepdog:disk:tag"), "inet localhost 7000 disk tag");
  EXPECT_EQ(options_of("sheepdog:host:7001:disk"), "inet host 7001 disk");
  EXPECT_EQ(options_of("sheepdog:host:7001:disk:3"), "inet host 7001 disk 3");
  for (const char* name : {"sheepdog:", "sheepdog:disk:", "sheepdog:host:x:disk"})
    EXPECT_THROW(parse_name(name), Error) << name;
}

TEST(SheepdogNames, UrisAreMade) {
  for (const std::string_view name :
       {"sheepdog:///disk", "sheepdog://host:7000/a/b%20c", "sheepdog://[::1]:7001/disk#tag",
        "sheepdog:///disk#12", "sheepdog+unix:///disk?socket=/a%20b#t"}) {
    Options options = parse_name(name);
    const VdiName vdi = vdi_of(options);
    EXPECT_EQ(uri_of(servers_of(options).front(), vdi), name);
  }
  EXPECT_EQ(uri_of(SocketAddress::inet("h", "1"), {.name = "d", .tag = "12", .snapshot = 0}), "");
}

TEST(SheepdogNames, SeveralServers) {
  Options options;
  options.set("server.0.host", "a");
  options.set("server.1.path", "/b");
  const auto servers = servers_of(options);
  ASSERT_EQ(servers.size(), 2U);
  EXPECT_EQ(servers[0].text(), "a:7000");
  EXPECT_EQ(servers[1].text(), "/b");
  options.set("server.0.host", "a");
  options.set("server.host", "b");
  EXPECT_THROW(servers_of(options), Error);
  options = {};
  options.set("server.type", "vsock");
  EXPECT_THROW(servers_of(options), Error);
}

}  // namespace
}  // namespace cairn::sheepdog
