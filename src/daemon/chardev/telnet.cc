#include "daemon/chardev/telnet.h"

namespace cairn::daemon {
namespace {

using namespace std::string_view_literals;

constexpr unsigned char kIac = 255;
constexpr unsigned char kDont = 254;
constexpr unsigned char kWill = 251;
constexpr unsigned char kSubnegotiation = 250;
constexpr unsigned char kSubnegotiationEnd = 240;
constexpr unsigned char kEndOfRecord = 239;

}  // namespace

std::string_view telnet_greeting(Telnet kind) {
  // Will echo, suppress go-ahead, and both sides send eight bits.
  if (kind == Telnet::kTerminal) return "\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00"sv;
  // Both sides send records of eight bits; which terminal is it?
  return "\xff\xfd\x19\xff\xfb\x19\xff\xfd\x00\xff\xfb\x00\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0"sv;
}

void TelnetInput::command(unsigned char byte, std::string& text) {
  state_ = State::kText;
  if (byte == kIac) {
    text.push_back(static_cast<char>(kIac));
  } else if (byte >= kWill && byte <= kDont) {
    state_ = State::kOption;
  } else if (kind_ == Telnet::kTn3270 &&
             (byte == kEndOfRecord || byte == kSubnegotiation || byte == kSubnegotiationEnd)) {
    text.push_back(static_cast<char>(kIac));
    text.push_back(static_cast<char>(byte));
  } else if (byte == kSubnegotiation) {
    state_ = State::kInside;
  }
}

std::string TelnetInput::feed(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    switch (state_) {
      case State::kText:
        if (byte == kIac)
          state_ = State::kCommand;
        else
          text.push_back(c);
        break;
      case State::kCommand:
        command(byte, text);
        break;
      case State::kOption:
        state_ = State::kText;
        break;
      case State::kInside:
        if (byte == kIac) state_ = State::kInsideCommand;
        break;
      case State::kInsideCommand:
        state_ = byte == kSubnegotiationEnd ? State::kText : State::kInside;
        break;
    }
  }
  return text;
}

Task<std::string> TelnetChannel::read() {
  while (true) {
    const std::string bytes = co_await below().read();
    if (bytes.empty()) co_return bytes;
    std::string text = input_.feed(bytes);
    if (!text.empty()) co_return text;
  }
}

}  // namespace cairn::daemon
