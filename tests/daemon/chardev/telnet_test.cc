#include "daemon/chardev/telnet.h"

#include <gtest/gtest.h>

namespace cairn::daemon {
namespace {

using namespace std::string_view_literals;

std::string text_of(std::string_view bytes, Telnet kind = Telnet::kTerminal) {
  TelnetInput whole(kind);
  std::string text = whole.feed(bytes);
  // Cut anywhere it says the same.
  TelnetInput cut(kind);
  std::string pieces;
  for (const char& c : bytes) pieces += cut.feed(std::string_view(&c, 1));
  EXPECT_EQ(text, pieces);
  return text;
}

TEST(TelnetInput, TakesCommandsOut) {
  EXPECT_EQ(text_of("plain"), "plain");
  EXPECT_EQ(text_of("a\xff\xfb\x01z\xff\xfe\x03y"sv), "azy");
  EXPECT_EQ(text_of("a\xff\xf1z\xff\xf3y\xff\xf6x"sv), "azyx");
  EXPECT_EQ(text_of("a\xff\xffz"sv), "a\xffz");
}

TEST(TelnetInput, SkipsWhatIsNegotiated) {
  EXPECT_EQ(text_of("a\xff\xfa\x18\0xterm\xff\xff!\xff\xf0z"sv), "az");
  EXPECT_EQ(text_of("a\xff\xfa\x18 without an end"sv), "a");
}

TEST(TelnetInput, KeepsMarksOfTerminals3270) {
  constexpr Telnet kKind = Telnet::kTn3270;
  EXPECT_EQ(text_of("a\xff\xef"sv, kKind), "a\xff\xef");
  EXPECT_EQ(text_of("a\xff\xfa\x18\0T\xff\xf0z"sv, kKind), "a\xff\xfa\x18\0T\xff\xf0z"sv);
  EXPECT_EQ(text_of("a\xff\xfd\x19z"sv, kKind), "az");
}

}  // namespace
}  // namespace cairn::daemon
