#pragma once

#include <string>
#include <string_view>

#include "daemon/chardev/channel.h"

namespace cairn::daemon {

enum class Telnet { kTerminal, kTn3270 };

// What a server says first.
std::string_view telnet_greeting(Telnet kind);

// Takes the commands of Telnet (RFC 854) out of what a client sends: options, which are not
// answered, and what is between SB and SE. With kTn3270 the marks that belong to the data of a
// 3270 terminal (EOR, and SB to SE) stay in. Commands may be cut anywhere between two calls.
class TelnetInput {
 public:
  explicit TelnetInput(Telnet kind) : kind_(kind) {}
  // The text that is left of BYTES.
  std::string feed(std::string_view bytes);

 private:
  enum class State { kText, kCommand, kOption, kInside, kInsideCommand };
  void command(unsigned char byte, std::string& text);
  Telnet kind_;
  State state_ = State::kText;
};

class TelnetChannel : public FilterChannel {
 public:
  TelnetChannel(std::unique_ptr<Channel> below, Telnet kind)
      : FilterChannel(std::move(below)), input_(kind) {}
  Task<std::string> read() override;

 private:
  TelnetInput input_;
};

}  // namespace cairn::daemon
