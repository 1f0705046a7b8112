#include "daemon/metrics/http_server.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPlain = "text/plain; charset=utf-8";
// The version of the text format, which Prometheus looks for.
constexpr std::string_view kExposition = "text/plain; version=0.0.4; charset=utf-8";

struct HttpReply {
  int status = 200;
  std::string_view type = kPlain;
  std::string body;
};

HttpReply reply_to(const HttpRequest& request, const std::function<std::string()>& page) {
  if (request.method != "GET" && request.method != "HEAD")
    return {405, kPlain, "only GET and HEAD are answered\n"};
  if (request.path != "/metrics") return {404, kPlain, "there is one page: /metrics\n"};
  return {200, kExposition, page()};
}

std::string head_of(const HttpReply& reply, bool keep_alive) {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " +
                     std::string(http_reason(reply.status)) + "\r\nContent-Type: ";
  head += reply.type;
  head += "\r\nContent-Length: " + std::to_string(reply.body.size()) + "\r\n";
  if (reply.status == 405) head += "Allow: GET, HEAD\r\n";
  head += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return head;
}

ByteSpan bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

HttpServer::HttpServer(std::vector<Socket> listeners, std::function<std::string()> page)
    : listeners_(std::move(listeners)), page_(std::move(page)) {
  for (const Socket& listener : listeners_) tasks_.spawn(accept_on(listener));
}

Task<void> HttpServer::stop() {
  stopping_ = true;
  for (const Socket& listener : listeners_) wake_waits(listener.fd());
  for (Client& client : clients_) client.stream.abort();
  co_await tasks_.join();
}

Task<void> HttpServer::accept_on(const Socket& listener) {
  while (!stopping_) {
    co_await await_ready(listener.fd(), POLLIN);
    if (stopping_) break;
    Socket socket = try_accept(listener);
    if (!socket) {
      // Out of descriptors: one must be given back first.
      if (errno != EAGAIN) co_await sleep_for(50ms);
      continue;
    }
    while (clients_.size() >= kMostClients && !stopping_) {
      let_one_go();
      co_await sleep_for(1ms);
    }
    if (stopping_) break;
    clients_.emplace_back(std::move(socket));
    tasks_.spawn(serve(std::prev(clients_.end())));
  }
}

void HttpServer::let_one_go() {
  const auto silent =
      std::min_element(clients_.begin(), clients_.end(),
                       [](const Client& a, const Client& b) { return a.active < b.active; });
  if (silent != clients_.end()) silent->stream.abort();
}

Task<void> HttpServer::serve(Clients::iterator client) {
  try {
    co_await talk(*client);
  } catch (const Error&) {
    // The client has gone, or was too slow: that is its own affair.
  } catch (const std::bad_alloc&) {
    // It is let go, and may ask again.
  }
  clients_.erase(client);
}

Task<void> HttpServer::talk(Client& client) {
  bool more = true;
  while (more && !stopping_) {
    size_t length = 0;
    const bool whole = co_await read_head(client, length);
    if (!whole) co_return;
    const std::string head = client.input.substr(0, length);
    client.input.erase(0, length);
    client.active = std::chrono::steady_clock::now();
    client.stream.set_deadline(client.active + kRequestTime);
    more = co_await answer(client, head);
    client.active = std::chrono::steady_clock::now();
    client.stream.set_deadline(client.active + kIdleTime);
  }
  co_await client.stream.finish();
}

// LENGTH becomes that of the head at the beginning of the input: kMostHttpHead + 1 when the head is
// longer than that. False at the end of the connection.
Task<bool> HttpServer::read_head(Client& client, size_t& length) {
  bool begun = false;
  std::array<std::byte, 4096> piece;
  while (true) {
    const auto found = http_head_length(client.input);
    length = std::min(found.value_or(client.input.size()), kMostHttpHead + 1);
    if (found || length > kMostHttpHead) co_return true;
    if (!begun && !client.input.empty()) {
      begun = true;
      client.stream.set_deadline(std::chrono::steady_clock::now() + kRequestTime);
    }
    const size_t got = co_await client.stream.read_some(piece);
    if (got == 0) co_return false;
    client.input.append(reinterpret_cast<const char*>(piece.data()), got);
  }
}

// False when the connection ends with the reply.
Task<bool> HttpServer::answer(Client& client, std::string_view head) {
  HttpRequest request;
  HttpReply reply;
  std::optional<HttpRefusal> refusal;
  if (head.size() > kMostHttpHead)
    refusal = HttpRefusal{431, "the head of the request is too long"};
  else
    refusal = parse_http_head(head, request);
  if (refusal)
    reply = {refusal->status, kPlain, std::string(refusal->text) + "\n"};
  else
    reply = reply_to(request, page_);
  const std::string lines = head_of(reply, request.keep_alive);
  co_await client.stream.write_all(bytes_of(lines));
  if (request.method != "HEAD") co_await client.stream.write_all(bytes_of(reply.body));
  co_return request.keep_alive;
}

}  // namespace cairn::daemon
