#include "net/qmp_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "async/runtime.h"
#include "platform/socket.h"

namespace cairn {
namespace {

using namespace std::chrono_literals;

// How soon a cancellation is noticed.
constexpr auto kSlice = 100ms;
// How long a peer may leave a request unread.
constexpr auto kSendLimit = 30s;

Error qmp_timeout() { return Error::system(ETIMEDOUT, "QMP"); }
Error no_qmp(const std::string& what) {
  return Error(ErrorKind::kIo, "The peer does not speak QMP: " + what);
}

std::string text_member(const Value& object, std::string_view name) {
  const Value* value = object.find(name);
  const auto* text = value != nullptr ? value->get_if<std::string>() : nullptr;
  return text != nullptr ? *text : std::string();
}

bool is_number(const Value* value, uint64_t number) {
  if (value == nullptr) return false;
  if (const auto* small = value->get_if<int64_t>())
    return *small >= 0 && static_cast<uint64_t>(*small) == number;
  const auto* large = value->get_if<uint64_t>();
  return large != nullptr && *large == number;
}

}  // namespace

QmpRefusal::QmpRefusal(std::string error_class, std::string message)
    : Error(ErrorKind::kInvalid, std::move(message)), class_(std::move(error_class)) {}

SocketAddress QmpClient::parse_address(const std::string& text) {
  if (text.starts_with("unix:")) return SocketAddress::unix_path(text.substr(5));
  std::string rest = text;
  if (rest.starts_with("tcp:"))
    rest.erase(0, 4);
  else if (rest.find('/') != std::string::npos || rest.find(':') == std::string::npos)
    return SocketAddress::unix_path(text);
  const size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon + 1 == rest.size())
    invalid("'" + text + "' names no port; write HOST:PORT or the path of a socket");
  std::string host = rest.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return SocketAddress::inet(host.empty() ? "localhost" : host, rest.substr(colon + 1));
}

Task<std::unique_ptr<QmpClient>> QmpClient::connect(SocketAddress address,
                                                    const CancelSource* cancel, Deadline deadline) {
  Socket socket = co_await connect_socket(std::move(address), deadline, cancel);
  std::unique_ptr<QmpClient> client = co_await negotiate(std::move(socket), cancel, deadline);
  co_return client;
}

Task<std::unique_ptr<QmpClient>> QmpClient::negotiate(Socket socket, const CancelSource* cancel,
                                                      Deadline deadline) {
  std::unique_ptr<QmpClient> client(new QmpClient(std::move(socket), cancel));
  const std::optional<Value> hello = co_await client->receive(deadline);
  if (!hello) throw qmp_timeout();
  const Value* greeting = hello->find("QMP");
  if (greeting == nullptr || !greeting->is_object()) throw no_qmp("it sends no greeting");
  client->greeting_ = *greeting;
  co_await client->execute("qmp_capabilities", Value::object(), deadline);
  co_return client;
}

// False when DEADLINE has passed.
Task<bool> QmpClient::wait(Deadline deadline) {
  while (true) {
    const auto now = std::chrono::steady_clock::now();
    if (cancel_ != nullptr && cancel_->requested()) {
      if (!grace_) cancel_->check();
      deadline = std::min(deadline, cancel_->requested_at() + *grace_);
    }
    const Deadline next = deadline - kSlice < now ? deadline : now + kSlice;
    const short ready = co_await await_ready(socket_.fd(), POLLIN, next);
    if (ready != 0) co_return true;
    if (std::chrono::steady_clock::now() >= deadline) co_return false;
  }
}

// What is sent in part would become a part of the next request: no cancellation cuts it off.
Task<void> QmpClient::send(std::string text, Deadline deadline) {
  deadline = std::min(deadline, std::chrono::steady_clock::now() + kSendLimit);
  size_t done = 0;
  while (done < text.size()) {
    const iovec rest{text.data() + done, text.size() - done};
    const ssize_t put = platform::send(socket_.fd(), {&rest, 1});
    if (put >= 0) {
      done += static_cast<size_t>(put);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw Error::system(errno, "QMP");
    const short ready = co_await await_ready(socket_.fd(), POLLOUT, deadline);
    if (ready == 0) throw qmp_timeout();
  }
}

// The next message, an object; nothing when DEADLINE has passed.
Task<std::optional<Value>> QmpClient::receive(Deadline deadline) {
  std::array<char, 16384> bytes;
  while (true) {
    if (std::optional<JsonStream::Item> item = input_.next()) {
      if (!item->error.empty()) throw no_qmp(item->error);
      if (!item->value.is_object()) throw no_qmp("a message is no object");
      co_return std::move(item->value);
    }
    const ssize_t got = platform::receive(socket_.fd(), bytes.data(), bytes.size());
    if (got > 0) {
      input_.feed({bytes.data(), static_cast<size_t>(got)});
      continue;
    }
    if (got == 0) throw Error(ErrorKind::kIo, "QMP: the server closed the connection");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw Error::system(errno, "QMP");
    const bool ready = co_await wait(deadline);
    if (!ready) co_return std::nullopt;
  }
}

void QmpClient::keep(Value event) {
  if (events_.size() == kMostEvents) events_.pop_front();
  events_.push_back(std::move(event));
}

Task<Value> QmpClient::execute(std::string command, Value arguments, Deadline deadline) {
  const uint64_t id = ++last_id_;
  Value request = Value::object();
  request.set("execute", command);
  if (const auto* members = arguments.get_if<Value::Object>(); members && !members->empty())
    request.set("arguments", std::move(arguments));
  request.set("id", id);
  if (cancel_ != nullptr && !grace_) cancel_->check();
  co_await send(request.compact() + "\n", deadline);
  while (true) {
    std::optional<Value> message = co_await receive(deadline);
    if (!message) throw qmp_timeout();
    if (message->find("event") != nullptr) {
      keep(std::move(*message));
      continue;
    }
    const Value* result = message->find("return");
    const Value* error = message->find("error");
    // Who connects while a server starts is greeted twice; replies to commands before are late.
    if (result == nullptr && error == nullptr) {
      if (message->find("QMP") != nullptr) continue;
      throw no_qmp("a message is none of greeting, reply and event");
    }
    const Value* named = message->find("id");
    if (named != nullptr && !is_number(named, id)) continue;
    if (error != nullptr)
      throw QmpRefusal(text_member(*error, "class"), text_member(*error, "desc"));
    if (named == nullptr) throw no_qmp("a reply has no id");
    co_return *result;
  }
}

Task<std::optional<Value>> QmpClient::next_event(Deadline deadline) {
  while (events_.empty()) {
    std::optional<Value> message = co_await receive(deadline);
    if (!message) co_return std::nullopt;
    if (message->find("event") != nullptr) keep(std::move(*message));
  }
  Value event = std::move(events_.front());
  events_.pop_front();
  co_return event;
}

}  // namespace cairn
