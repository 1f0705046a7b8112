#include "daemon/chardev/websocket.h"

#include <algorithm>
#include <ctime>

#include "base/base64.h"
#include "base/bytes.h"
#include "crypto/hash.h"

namespace cairn::daemon {
namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
constexpr size_t kKeyBytes = 24;
constexpr size_t kMostControl = 125;
constexpr uint8_t kContinuation = 0, kBinary = 2, kClose = 8, kPing = 9, kPong = 10;
constexpr uint16_t kNormal = 1000, kProtocolError = 1002, kUnsupported = 1003, kPolicy = 1008;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The line at the beginning of TEXT, which it is cut off from.
std::string_view next_line(std::string_view& text) {
  const size_t end = std::min(text.find("\r\n"), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 2, text.size()));
  return line;
}

// Whether the list LIST, separated by commas, has WORD.
bool lists(std::string_view list, std::string_view word) {
  while (true) {
    const size_t comma = std::min(list.find(','), list.size());
    if (lower(trimmed(list.substr(0, comma))) == word) return true;
    if (comma == list.size()) return false;
    list.remove_prefix(comma + 1);
  }
}

struct Request {
  std::string_view host, upgrade, connection, key, version;
  std::optional<std::string_view> protocols;
};

// False when a line is no header.
bool read_headers(std::string_view text, Request& request) {
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    if (line.empty()) return true;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (name == "host") request.host = value;
    if (name == "upgrade") request.upgrade = value;
    if (name == "connection") request.connection = value;
    if (name == "sec-websocket-key") request.key = value;
    if (name == "sec-websocket-version") request.version = value;
    if (name == "sec-websocket-protocol") request.protocols = value;
  }
  return true;
}

bool acceptable(const Request& request) {
  return !request.host.empty() && lists(request.upgrade, "websocket") &&
         lists(request.connection, "upgrade") && request.version == "13" &&
         request.key.size() == kKeyBytes &&
         (!request.protocols || lists(*request.protocols, "binary"));
}

std::string accept_key(std::string_view key) {
  const std::string text = std::string(key) + std::string(kGuid);
  std::string hash(digest_bytes(HashAlgorithm::kSha1), '\0');
  digest(HashAlgorithm::kSha1,
         ByteSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()), {},
         MutableByteSpan(reinterpret_cast<std::byte*>(hash.data()), hash.size()));
  return encode_base64(hash);
}

std::string status(std::string_view line, std::string_view date) {
  return "HTTP/1.1 " + std::string(line) + "\r\nServer: QEMU VNC\r\nDate: " + std::string(date) +
         "\r\n";
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  const size_t length =
      std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text.data(), length);
}

}  // namespace

WebsocketAnswer answer_websocket(std::string_view head, std::string_view date) {
  if (head.size() > kMostWebsocketHead)
    return {.text = status("403 Request Entity Too Large", date) + "Connection: close\r\n\r\n"};
  const std::string bad =
      status("400 Bad Request", date) + "Connection: close\r\nSec-WebSocket-Version: 13\r\n\r\n";
  std::string_view rest = head;
  std::string_view first = next_line(rest);
  constexpr std::string_view kMethod = "GET ", kProtocol = " HTTP/1.1";
  if (first.size() < kMethod.size() + kProtocol.size() || !first.starts_with(kMethod) ||
      !first.ends_with(kProtocol))
    return {.text = bad};
  first.remove_prefix(kMethod.size());
  first.remove_suffix(kProtocol.size());
  if (first != "/") return {.text = status("404 Not Found", date) + "Connection: close\r\n\r\n"};
  Request request;
  if (!read_headers(rest, request) || !acceptable(request)) return {.text = bad};
  std::string text = status("101 Switching Protocols", date);
  text += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
          accept_key(request.key) + "\r\n";
  if (request.protocols) text += "Sec-WebSocket-Protocol: binary\r\n";
  return {.text = text + "\r\n", .accepted = true};
}

std::string websocket_frame(WebsocketFrame kind, std::string_view payload) {
  std::string frame(1, static_cast<char>(0x80 | static_cast<uint8_t>(kind)));
  const uint64_t size = payload.size();
  unsigned bytes = 0;  // of a length that does not fit in seven bits
  if (size > UINT16_MAX)
    bytes = 8;
  else if (size > kMostControl)
    bytes = 2;
  frame.push_back(static_cast<char>(bytes == 8 ? 127 : bytes == 2 ? 126 : size));
  for (unsigned at = bytes; at != 0; --at)
    frame.push_back(static_cast<char>(size >> (8 * (at - 1)) & 0xff));
  return frame.append(payload);
}

void WebsocketInput::close(uint16_t code, std::string_view why) {
  closed_ = true;
  std::string payload{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)};
  replies_ += websocket_frame(WebsocketFrame::kClose, payload.append(why));
}

// False: what the header says is refused.
bool WebsocketInput::check_header(uint64_t length) {
  const auto flags = static_cast<uint8_t>(pending_[0]);
  const bool masked = (static_cast<uint8_t>(pending_[1]) & 0x80) != 0;
  opcode_ = flags & 0x0f;
  final_ = (flags & 0x80) != 0;
  const bool control = opcode_ == kClose || opcode_ == kPing || opcode_ == kPong;
  if (!masked)
    close(kProtocolError, "client frames must be masked");
  else if (!control && opcode_ != (fragments_ ? kContinuation : kBinary))
    close(kUnsupported, "only binary, close, ping, and pong frames are supported");
  else if (control && !final_)
    close(kPolicy, "only binary frames may be fragmented");
  else if (control && length > kMostControl)
    close(kProtocolError, "control frame is too large");
  else if ((flags & 0x70) != 0 || length >> 63 != 0)
    close(kProtocolError, "reserved bits are set");
  if (!control) fragments_ = !final_;
  return !closed_;
}

// True when pending_ had a whole header, which is gone then.
bool WebsocketInput::parse_header() {
  if (pending_.size() < 2) return false;
  const auto second = static_cast<uint8_t>(pending_[1]);
  uint64_t length = second & 0x7f;
  const size_t more = length == 127 ? 8 : length == 126 ? 2 : 0;
  // What is refused may be shorter than it says.
  const size_t mask = (second & 0x80) != 0 ? mask_.size() : 0;
  if (pending_.size() < 2 + more + mask) return false;
  if (more != 0) length = 0;
  for (size_t at = 0; at < more; ++at)
    length = length << 8 | static_cast<uint8_t>(pending_[2 + at]);
  if (!check_header(length)) return false;
  std::copy_n(pending_.data() + 2 + more, mask, mask_.data());
  pending_.erase(0, 2 + more + mask);
  left_ = length;
  mask_at_ = 0;
  inside_ = true;
  control_.clear();
  return true;
}

void WebsocketInput::take_payload() {
  const auto count = static_cast<size_t>(std::min<uint64_t>(left_, pending_.size()));
  std::string& target = opcode_ == kContinuation || opcode_ == kBinary ? data_ : control_;
  for (size_t at = 0; at < count; ++at)
    target.push_back(static_cast<char>(pending_[at] ^ mask_[mask_at_++ % mask_.size()]));
  pending_.erase(0, count);
  left_ -= count;
  if (left_ == 0) end_control();
}

// The end of any frame.
void WebsocketInput::end_control() {
  inside_ = false;
  if (opcode_ == kPing) replies_ += websocket_frame(WebsocketFrame::kPong, control_);
  if (opcode_ == kClose) close(kNormal, "peer requested close");
}

void WebsocketInput::feed(std::string_view bytes) {
  if (closed_) return;
  pending_.append(bytes);
  while (!closed_) {
    if (!inside_ && !parse_header()) break;
    if (left_ != 0 && pending_.empty()) break;
    take_payload();
  }
  if (closed_) pending_.clear();
}

std::string WebsocketInput::take_data() { return std::exchange(data_, {}); }
std::string WebsocketInput::take_replies() { return std::exchange(replies_, {}); }

Task<bool> WebsocketChannel::send(std::string frames) {
  const auto turn = co_await turn_.lock();
  const bool sent = co_await below().write(std::move(frames));
  co_return sent;
}

Task<std::string> WebsocketChannel::read() {
  while (true) {
    std::string replies = input_.take_replies();
    if (!replies.empty()) {
      const bool sent = co_await send(std::move(replies));
      if (!sent) co_return std::string();
    }
    std::string data = input_.take_data();
    if (!data.empty() || input_.closed()) co_return data;
    const std::string bytes = co_await below().read();
    if (bytes.empty()) co_return bytes;
    input_.feed(bytes);
  }
}

Task<bool> WebsocketChannel::write(std::string text) {
  const bool sent = co_await send(websocket_frame(WebsocketFrame::kBinary, text));
  co_return sent;
}

Task<std::unique_ptr<Channel>> accept_websocket(std::unique_ptr<Channel> below) {
  std::string input;
  size_t end = std::string::npos;
  while (end == std::string::npos && input.size() <= kMostWebsocketHead) {
    const std::string bytes = co_await below->read();
    if (bytes.empty()) co_return nullptr;
    input += bytes;
    end = input.find("\r\n\r\n");
  }
  const std::string_view all = input;
  const size_t length = end == std::string::npos ? all.size() : end + 4;
  WebsocketAnswer answer = answer_websocket(all.substr(0, length), http_date());
  const bool sent = co_await below->write(std::move(answer.text));
  if (!sent || !answer.accepted) co_return nullptr;
  co_return std::make_unique<WebsocketChannel>(std::move(below), all.substr(length));
}

}  // namespace cairn::daemon
