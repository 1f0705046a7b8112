// What a client of a character device sends: the head of a request, frames, commands of Telnet.
#include "daemon/chardev/websocket.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "daemon/chardev/telnet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::daemon;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const WebsocketAnswer answer = answer_websocket(text, "");
  if (answer.accepted != (answer.text.substr(9, 3) == "101")) abort();
  // Frames mean the same however they are cut.
  WebsocketInput whole, cut;
  whole.feed(text);
  const size_t half = size / 2;
  cut.feed(text.substr(0, half));
  cut.feed(text.substr(half));
  if (whole.closed() != cut.closed() || whole.take_replies() != cut.take_replies()) abort();
  const std::string payload = whole.take_data();
  if (payload != cut.take_data() || payload.size() > size) abort();
  for (const Telnet kind : {Telnet::kTerminal, Telnet::kTn3270}) {
    TelnetInput input(kind), pieces(kind);
    std::string joined = pieces.feed(text.substr(0, half));
    joined += pieces.feed(text.substr(half));
    if (input.feed(text) != joined) abort();
  }
  return 0;
}
