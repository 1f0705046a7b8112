#include "daemon/chardev/websocket.h"

#include <gtest/gtest.h>

#include <map>

namespace cairn::daemon {
namespace {

using namespace std::string_view_literals;

using Headers = std::map<std::string, std::string>;

Headers good() {
  return {{"Host", "x"},
          {"Upgrade", "websocket"},
          {"Connection", "Upgrade"},
          {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
          {"Sec-WebSocket-Version", "13"},
          {"Sec-WebSocket-Protocol", "binary"}};
}

std::string head(const Headers& headers, std::string_view first = "GET / HTTP/1.1") {
  std::string text = std::string(first) + "\r\n";
  for (const auto& [name, value] : headers) text.append(name + ": " + value + "\r\n");
  return text + "\r\n";
}

std::string answer(std::string_view text) { return answer_websocket(text, "D").text; }

std::string status(const std::string& text) { return answer(text).substr(9, 3); }

std::string frame(unsigned first, std::string payload, bool masked = true) {
  constexpr std::string_view kMask = "\x01\x80\xff\x2a";
  std::string out(1, static_cast<char>(first));
  const unsigned flag = masked ? 0x80 : 0;
  if (payload.size() < 126) {
    out.push_back(static_cast<char>(flag | payload.size()));
  } else {
    out.push_back(static_cast<char>(flag | 126));
    out.push_back(static_cast<char>(payload.size() >> 8));
    out.push_back(static_cast<char>(payload.size() & 0xff));
  }
  if (masked) {
    out += kMask;
    for (size_t at = 0; at < payload.size(); ++at)
      payload[at] = static_cast<char>(payload[at] ^ kMask[at % 4]);
  }
  return out + payload;
}

// How a client is let go that sends BYTES, whole and byte by byte.
std::string goodbye(std::string_view bytes) {
  WebsocketInput whole;
  whole.feed(bytes);
  WebsocketInput cut;
  for (const char& c : bytes) cut.feed(std::string_view(&c, 1));
  EXPECT_EQ(whole.closed(), cut.closed());
  std::string replies = whole.take_replies();
  EXPECT_EQ(replies, cut.take_replies());
  return whole.closed() ? replies : std::string();
}

TEST(WebsocketHandshake, AnswersWithTheKeyOfTheStandard) {
  const WebsocketAnswer said = answer_websocket(head(good()), "D");
  EXPECT_TRUE(said.accepted);
  EXPECT_EQ(said.text,
            "HTTP/1.1 101 Switching Protocols\r\nServer: QEMU VNC\r\nDate: D\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            "Sec-WebSocket-Protocol: binary\r\n\r\n");
  Headers headers = good();
  headers.erase("Sec-WebSocket-Protocol");
  EXPECT_EQ(answer(head(headers)).find("Protocol:"), std::string::npos);
}

TEST(WebsocketHandshake, TakesListsAndAnyCase) {
  Headers headers = good();
  headers["Connection"] = "keep-alive, upgrade";
  headers["Upgrade"] = "WebSocket";
  headers["Sec-WebSocket-Protocol"] = "base64, binary";
  EXPECT_EQ(status(head(headers)), "101");
}

TEST(WebsocketHandshake, RefusesWhatIsWrong) {
  for (const auto& [name, value] : good()) {
    Headers headers = good();
    headers[name] = "8";
    const bool any = name == "Host";
    EXPECT_EQ(status(head(headers)), any ? "101" : "400") << name;
    headers.erase(name);
    const bool needed = name != "Sec-WebSocket-Protocol";
    EXPECT_EQ(status(head(headers)), needed ? "400" : "101") << name;
  }
  EXPECT_EQ(status(head(good(), "POST / HTTP/1.1")), "400");
  EXPECT_EQ(status(head(good(), "GET / HTTP/1.0")), "400");
  EXPECT_EQ(status(head(good(), "GET /disk HTTP/1.1")), "404");
  EXPECT_EQ(status("GET / HTTP/1.1\r\nno header\r\n\r\n"), "400");
  EXPECT_EQ(status("\r\n\r\n"), "400");
  EXPECT_EQ(status("GET HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status(std::string(kMostWebsocketHead + 1, 'x')), "403");
}

TEST(WebsocketInput, PutsPayloadTogether) {
  WebsocketInput input;
  const std::string all = frame(0x02, "one ") + frame(0x89, "hey") + frame(0x00, "and ") +
                          frame(0x80, "two") + frame(0x82, "") + frame(0x8a, "late") +
                          frame(0x82, std::string(300, 'x'));
  for (const char& c : all) input.feed(std::string_view(&c, 1));
  EXPECT_EQ(input.take_data(), "one and two" + std::string(300, 'x'));
  EXPECT_EQ(input.take_replies(), "\x8a\x03hey");
  EXPECT_FALSE(input.closed());
}

TEST(WebsocketInput, LetsGoOfWhoSaysSo) {
  EXPECT_EQ(goodbye(frame(0x88, "\x03\xe8 bye")), "\x88\x16\x03\xe8peer requested close");
  EXPECT_EQ(goodbye(frame(0x88, "")), "\x88\x16\x03\xe8peer requested close");
}

TEST(WebsocketInput, LetsGoOfWhoBreaksTheRules) {
  const std::string kinds =
      "\x88\x39\x03\xebonly binary, close, ping, and pong frames are supported";
  EXPECT_EQ(goodbye(frame(0x81, "text")), kinds);
  EXPECT_EQ(goodbye(frame(0x83, "reserved")), kinds);
  EXPECT_EQ(goodbye(frame(0x80, "continues nothing")), kinds);
  EXPECT_EQ(goodbye(frame(0x02, "begins") + frame(0x82, "again")), kinds);
  EXPECT_EQ(goodbye(frame(0x82, "clear", false)),
            "\x88\x1e\x03\xea"
            "client frames must be masked");
  EXPECT_EQ(goodbye(frame(0x09, "x")), "\x88&\x03\xf0only binary frames may be fragmented");
  EXPECT_EQ(goodbye(frame(0x89, std::string(126, 'x'))),
            "\x88\x1c\x03\xea"
            "control frame is too large");
  EXPECT_EQ(goodbye(frame(0xc2, "x")), "\x88\x17\x03\xeareserved bits are set");
  EXPECT_EQ(goodbye("\x82\xff\xff\0\0\0\0\0\0\0\0\0\0\0"sv),
            "\x88\x17\x03\xeareserved bits are set");
}

TEST(WebsocketInput, HoldsNoMoreThanHasCome) {
  WebsocketInput input;
  input.feed("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0some"sv);
  EXPECT_EQ(input.take_data(), "some");
  EXPECT_FALSE(input.closed());
}

TEST(WebsocketFrame, HasThreeLengths) {
  constexpr WebsocketFrame kKind = WebsocketFrame::kBinary;
  EXPECT_EQ(websocket_frame(kKind, "x"), "\x82\x01x");
  EXPECT_EQ(websocket_frame(kKind, std::string(126, 'x')).substr(0, 4), "\x82\x7e\0\x7e"sv);
  EXPECT_EQ(websocket_frame(kKind, std::string(65536, 'x')).substr(0, 10),
            "\x82\x7f\0\0\0\0\0\1\0\0"sv);
}

}  // namespace
}  // namespace cairn::daemon
