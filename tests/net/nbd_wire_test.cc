#include "net/nbd_wire.h"

#include <gtest/gtest.h>

#include "net/nbd_uri.h"

namespace cairn::nbd {
namespace {

template <class T>
Bytes encoded(const T& item) {
  Bytes out;
  item.encode(out);
  return out;
}

TEST(NbdWire, HandshakeItemsRoundTrip) {
  EXPECT_EQ(Greeting::decode(encoded(Greeting{.flags = 3})).flags, 3);
  const OptionHeader option =
      OptionHeader::decode(encoded(OptionHeader{.option = Option::kGo, .length = 77}));
  EXPECT_EQ(option.option, Option::kGo);
  EXPECT_EQ(option.length, 77u);
  GoRequest go{.name = "disk", .infos = {3, 1}};
  const GoRequest again = GoRequest::decode(encoded(go));
  EXPECT_EQ(again.name, "disk");
  EXPECT_TRUE(again.asks_for(Info::kBlockSize));
  EXPECT_FALSE(again.asks_for(Info::kDescription));
  MetaContextRequest contexts{.name = "d", .queries = {"base:allocation", "qemu:"}};
  EXPECT_EQ(MetaContextRequest::decode(encoded(contexts)).queries, contexts.queries);
  EXPECT_EQ(MetaContextReply::decode(encoded(MetaContextReply{.id = 7, .name = "x:y"})).name,
            "x:y");
  EXPECT_EQ(BlockSizeInfo::decode(encoded(BlockSizeInfo{.minimum = 512})).minimum, 512u);
}

TEST(NbdWire, TransmissionItemsRoundTrip) {
  for (const bool extended : {false, true}) {
    Request request{.flags = kCmdFua,
                    .command = Command::kWrite,
                    .cookie = 0x0123456789abcdef,
                    .offset = 1ull << 40,
                    .length = 65536};
    Bytes out;
    request.encode(out, extended);
    EXPECT_EQ(out.size(), extended ? Request::kExtendedBytes : Request::kBytes);
    const Request again = Request::decode(out, extended);
    EXPECT_EQ(again.cookie, request.cookie);
    EXPECT_EQ(again.offset, request.offset);
    EXPECT_EQ(again.length, request.length);
    EXPECT_THROW(Request::decode(out, !extended), Error);
    StatusPayload status{.context = 2, .extents = {{65536, 3}, {4096, 0}}};
    Bytes payload;
    status.encode(payload, extended);
    EXPECT_EQ(StatusPayload::decode(payload, extended).extents, status.extents);
    payload.pop_back();
    EXPECT_THROW(StatusPayload::decode(payload, extended), Error);
  }
  const ErrorPayload error{.error = 5, .text = "no", .offset = 512};
  EXPECT_EQ(ErrorPayload::decode(encoded(error), Chunk::kErrorOffset).offset, 512u);
}

// Lengths inside of items that point beyond them, names that are too long, counts that do not fit.
TEST(NbdWire, LengthsThatLieAreRefused) {
  Bytes go = encoded(GoRequest{.name = "disk", .infos = {3}});
  for (size_t cut = 0; cut < go.size(); ++cut)
    EXPECT_THROW(GoRequest::decode(ByteSpan(go).first(cut)), Error) << cut;
  store_be<uint32_t>(go, 0, 0xffffffff);
  EXPECT_THROW(GoRequest::decode(go), Error);
  EXPECT_THROW(GoRequest::decode(encoded(GoRequest{.name = std::string(4097, 'x'), .infos = {}})),
               Error);
  EXPECT_THROW(GoRequest::decode(encoded(GoRequest{.name = std::string("a\0b", 3), .infos = {}})),
               Error);
  Bytes contexts = encoded(MetaContextRequest{.name = "d", .queries = {"a:b"}});
  store_be<uint32_t>(contexts, 5, 0xfffffff0);
  EXPECT_THROW(MetaContextRequest::decode(contexts), Error);
  Bytes server = encoded(ServerReply{.name = "n", .description = "d"});
  store_be<uint32_t>(server, 0, 0xffffffff);
  EXPECT_THROW(ServerReply::decode(server), Error);
  Bytes sizes = encoded(BlockSizeInfo{.minimum = 3});
  EXPECT_THROW(BlockSizeInfo::decode(sizes), Error);
  Bytes hole = encoded(HolePayload{.offset = 0, .length = 0});
  EXPECT_THROW(HolePayload::decode(hole), Error);
}

TEST(NbdWire, PeersTextIsShownWithoutControlCharacters) {
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a?[2Jb?");
  EXPECT_EQ(printable(std::string(100, 'x'), 80), std::string(80, 'x') + "...");
}

TEST(NbdUri, AllSpellings) {
  struct Row {
    const char* name;
    SocketAddress::Kind kind;
    const char* where;
    const char* exported;
    bool tls;
  };
  using Kind = SocketAddress::Kind;
  for (const Row& row : {
           Row{"nbd://h", Kind::kInet, "h:10809", "", false},
           Row{"nbd://h:99/", Kind::kInet, "h:99", "", false},
           Row{"nbd+tcp://h/a%20b", Kind::kInet, "h:10809", "a b", false},
           Row{"nbd://h//a", Kind::kInet, "h:10809", "/a", false},
           Row{"nbd://u@[::1]:7/x", Kind::kInet, "[::1]:7", "x", false},
           Row{"nbds://u@h/x", Kind::kInet, "h:10809", "x", true},
           Row{"nbd+unix:///e?socket=/tmp/s", Kind::kUnix, "/tmp/s", "e", false},
           Row{"nbd+unix://?socket=/tmp/s", Kind::kUnix, "/tmp/s", "", false},
           Row{"nbd+unix:///?socket=%00abc", Kind::kUnix, "@abc", "", false},
           Row{"nbd+vsock://3:5/e", Kind::kVsock, "vsock:3:5", "e", false},
           Row{"nbd:h:99", Kind::kInet, "h:99", "", false},
           Row{"nbd:h:99:exportname=a:b/c", Kind::kInet, "h:99", "a:b/c", false},
           Row{"nbd:[::1]:99", Kind::kInet, "[::1]:99", "", false},
           Row{"nbd:h:99,ipv4=on:exportname=e", Kind::kInet, "h:99", "e", false},
           Row{"nbd://h:0/e", Kind::kInet, "h:10809", "e", false},
           Row{"nbd:unix:/s:exportname=e", Kind::kUnix, "/s", "e", false},
       }) {
    const Location location = parse_location(row.name);
    EXPECT_EQ(location.server.kind, row.kind) << row.name;
    EXPECT_EQ(location.server.text(), row.where) << row.name;
    EXPECT_EQ(location.export_name, row.exported) << row.name;
    EXPECT_EQ(location.tls, row.tls) << row.name;
  }
  const Location tls = parse_location("nbds://u@h/?tls-type=psk&tls-psk-file=/k&tls-hostname=n");
  EXPECT_EQ(tls.user, "u");
  EXPECT_EQ(tls.tls_type, "psk");
  EXPECT_EQ(tls.tls_psk_file, "/k");
  EXPECT_EQ(tls.tls_hostname, "n");
}

TEST(NbdUri, WrongOnesAreRefused) {
  for (const char* name : {"nbd://",
                           "nbd:///x",
                           "nbd://h?socket=/s",
                           "nbd://h?x=1",
                           "nbd+unix://h?socket=/s",
                           "nbd+unix:///x",
                           "nbd+unix:///?socket=",
                           "nbd://h:abc/",
                           "nbd+foo://h",
                           "nbd://h/%zz",
                           "nbd://h/%00",
                           "nbd://[::1/",
                           "nbd:",
                           "nbd:unix:",
                           "nbd://h/?tls-type=psk",
                           "nbd://h:65536/",
                           "nbd:h",
                           "nbd:h:",
                           "nbd:[::1]",
                           "nbd:[::1",
                           "nbd:h:1:exportname=",
                           "nbd+unix:/x?socket=/s"})
    EXPECT_THROW(parse_location(name), Error) << name;
}

TEST(NbdUri, FormattedOnesParse) {
  const SocketAddress unix_address = SocketAddress::unix_path("/tmp/a b?");
  const std::string uri = format_uri(unix_address, "ex port/1", false);
  EXPECT_EQ(uri, "nbd+unix:///ex%20port/1?socket=/tmp/a%20b%3F");
  EXPECT_EQ(parse_location(uri).server, unix_address);
  EXPECT_EQ(parse_location(uri).export_name, "ex port/1");
  EXPECT_EQ(format_uri(SocketAddress::inet("::1", "10810"), "", true), "nbds://[::1]:10810/");
}

}  // namespace
}  // namespace cairn::nbd
