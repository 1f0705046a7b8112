#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "async/sync.h"
#include "daemon/chardev/channel.h"

namespace cairn::daemon {

// A head of a request that is longer is refused.
inline constexpr size_t kMostWebsocketHead = 4096;

// What a server of websockets (RFC 6455) says to the head of a request, which ends with an empty
// line; to one that is longer than kMostWebsocketHead without an end, too.
struct WebsocketAnswer {
  std::string text;
  bool accepted = false;  // frames follow
};
WebsocketAnswer answer_websocket(std::string_view head, std::string_view date);

// Takes frames of a client apart.
class WebsocketInput {
 public:
  // BYTES as they come, frames cut anywhere. Nothing more is taken once closed().
  void feed(std::string_view bytes);
  // The payload so far.
  std::string take_data();
  // Frames to be sent: answers to pings, and the goodbye.
  std::string take_replies();
  // The peer said goodbye, or something that is wrong: after the replies the connection ends.
  bool closed() const { return closed_; }

 private:
  bool parse_header();
  bool check_header(uint64_t length);
  void take_payload();
  void end_control();
  void close(uint16_t code, std::string_view why);
  std::string pending_;  // a part of a header
  std::string data_, replies_, control_;
  std::array<char, 4> mask_{};
  uint64_t left_ = 0;  // of the payload
  uint64_t mask_at_ = 0;
  uint8_t opcode_ = 0;
  bool final_ = false;
  bool inside_ = false;     // of a frame: its header is known
  bool fragments_ = false;  // of a message follow
  bool closed_ = false;
};

// One frame with PAYLOAD, as a server sends them.
enum class WebsocketFrame : uint8_t { kBinary = 2, kClose = 8, kPong = 10 };
std::string websocket_frame(WebsocketFrame kind, std::string_view payload);

// Speaks frames over another channel, on which the handshake is over.
class WebsocketChannel : public FilterChannel {
 public:
  // FIRST: what the client sent after its request.
  WebsocketChannel(std::unique_ptr<Channel> below, std::string_view first)
      : FilterChannel(std::move(below)) {
    input_.feed(first);
  }
  Task<std::string> read() override;
  Task<bool> write(std::string text) override;

 private:
  Task<bool> send(std::string frames);
  WebsocketInput input_;
  Mutex turn_;  // of who writes: frames are not mixed
};

// Does the handshake of a server over BELOW. Null when it failed: the client has its answer.
Task<std::unique_ptr<Channel>> accept_websocket(std::unique_ptr<Channel> below);

}  // namespace cairn::daemon
