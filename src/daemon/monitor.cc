#include "daemon/monitor.h"

#include <atomic>
#include <chrono>

#include "async/task_group.h"
#include "base/json_stream.h"
#include "daemon/qmp_error.h"
#include "daemon/schema/schema.h"
#include "daemon/version.h"
#include "qemu/json_order.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// What a client may take to fetch its last replies when the daemon ends.
constexpr auto kLastMoment = 1s;

Value error_reply(std::string_view error_class, const std::string& text) {
  Value error = Value::object();
  error.set("class", error_class);
  error.set("desc", text);
  Value reply = Value::object();
  reply.set("error", std::move(error));
  return reply;
}

Value greeting(bool out_of_band) {
  Value capabilities = Value::array();
  if (out_of_band) capabilities.push_back("oob");
  Value inner = Value::object();
  inner.set("version", version_reply());
  inner.set("capabilities", std::move(capabilities));
  Value hello = Value::object();
  hello.set("QMP", std::move(inner));
  return hello;
}

// The name of the command that REQUEST is for. Throws kInvalid when REQUEST is none.
std::string command_of(const Value& request, bool out_of_band) {
  if (!request.is_object()) invalid("QMP input must be a JSON object");
  std::string name;
  bool named = false;
  for (const auto& [member, value] : *request.get_if<Value::Object>()) {
    if (member == "execute" || (member == "exec-oob" && out_of_band)) {
      const auto* text = value.get_if<std::string>();
      if (text == nullptr) invalid("QMP input member '" + member + "' must be a string");
      if (named) invalid("QMP input member '" + member + "' clashes with 'execute'");
      named = true;
      name = *text;
    } else if (member == "arguments") {
      if (!value.is_object()) invalid("QMP input member 'arguments' must be an object");
    } else if (member != "id") {
      invalid("QMP input member '" + member + "' is unexpected");
    }
  }
  if (!named) invalid("QMP input lacks member 'execute'");
  return name;
}

}  // namespace

// One client, from its greeting to its end.
struct Monitor::Client {
  explicit Client(std::unique_ptr<Channel> connection) : channel(std::move(connection)) {}
  std::unique_ptr<Channel> channel;
  Outbox outbox;
  std::atomic<bool> negotiated{false};
  bool out_of_band = false;
  bool quits = false;    // it has ended the daemon: nothing that follows is read
  bool written = false;  // the writer has ended
};

void Monitor::send(Client& client, const Value& message) {
  std::string text = message.compact(qemu::json_order);
  if (pretty_) {
    text.clear();
    for (const char c : message.pretty(qemu::json_order)) {
      if (c == '\n') text.push_back('\r');
      text.push_back(c);
    }
  }
  client.outbox.post(text + "\r\n");
}

void Monitor::send_event(const Value& event) {
  std::lock_guard lock(mutex_);
  if (client_ && client_->negotiated) send(*client_, event);
}

void Monitor::stop() {
  stopping_ = true;
  std::lock_guard lock(mutex_);
  if (!client_) return;
  client_->outbox.finish();
  client_->channel->stop_reading();
}

Task<void> Monitor::run() {
  while (!stopping_) {
    std::unique_ptr<Channel> channel = co_await chardev_.next_client();
    if (!channel || stopping_) break;
    auto client = std::make_shared<Client>(std::move(channel));
    {
      std::lock_guard lock(mutex_);
      client_ = client;
    }
    chardev_.set_open(true);
    co_await talk(client);
    chardev_.set_open(false);
    std::lock_guard lock(mutex_);
    client_ = nullptr;
  }
}

Task<void> Monitor::write_out(std::shared_ptr<Client> client) {
  while (true) {
    std::string text = co_await client->outbox.take();
    if (text.empty()) break;
    const bool taken = co_await client->channel->write(std::move(text));
    if (!taken) break;
  }
  client->written = true;
  client->outbox.abandon();
  client->channel->abort();
}

// The last replies must be fetched in time. Those to who ends the daemon come with its end.
Task<void> Monitor::hurry(std::shared_ptr<Client> client) {
  while (client->quits && !stopping_ && !client->written) co_await sleep_for(5ms);
  const auto until = std::chrono::steady_clock::now() + kLastMoment;
  while (!client->written && std::chrono::steady_clock::now() < until) co_await sleep_for(5ms);
  client->channel->abort();
}

Task<void> Monitor::talk(std::shared_ptr<Client> client) {
  send(*client, greeting(client->channel->out_of_band()));
  TaskGroup tasks;
  tasks.spawn(write_out(client));
  JsonStream input;
  bool ended = false;
  while (!ended && !stopping_ && !client->quits) {
    const std::string bytes = co_await client->channel->read();
    ended = bytes.empty();
    input.feed(bytes);
    if (ended) input.finish();
    while (!stopping_ && !client->quits) {
      std::optional<JsonStream::Item> item = input.next();
      if (!item) break;
      if (item->error.empty())
        co_await answer(*client, std::move(item->value));
      else
        send(*client, error_reply("GenericError", item->error));
      co_await client->outbox.wait_for_room();
    }
  }
  if (!client->quits) client->outbox.finish();
  tasks.spawn(hurry(client));
  co_await tasks.join();
}

Value Monitor::negotiate(Client& client, const Value& arguments) {
  if (client.negotiated)
    throw QmpError::not_found("Capabilities negotiation is already complete, command ignored");
  const Value checked = checked_value("QmpCapabilities", arguments, Form::kJson);
  if (const Value* enable = checked.find("enable"))
    client.out_of_band = !enable->get_if<Value::Array>()->empty();
  client.negotiated = true;
  return Value::object();
}

Task<Value> Monitor::obey(Client& client, const Value& request) {
  const std::string name = command_of(request, client.out_of_band);
  const Value* given = request.find("arguments");
  Value arguments = Value::object();
  if (given != nullptr) arguments = *given;
  if (name == "qmp_capabilities") co_return negotiate(client, arguments);
  if (!client.negotiated)
    throw QmpError::not_found("Expecting capabilities negotiation with 'qmp_capabilities'");
  if (request.find("exec-oob") != nullptr && daemon_.knows(name))
    invalid("The command " + name + " does not support OOB");
  Value result = co_await daemon_.execute(name, std::move(arguments), Form::kJson);
  co_return result;
}

Task<void> Monitor::answer(Client& client, Value request) {
  Value reply = Value::object();
  try {
    Value result = co_await obey(client, request);
    reply.set("return", std::move(result));
  } catch (const QmpError& error) {
    reply = error_reply(error.error_class(), error.message());
  } catch (const Error& error) {
    reply = error_reply("GenericError", error.message());
  } catch (const std::bad_alloc&) {
    reply = error_reply("GenericError", "out of memory");
  }
  if (const Value* id = request.find("id")) reply.set("id", *id);
  // The reply to what ends the daemon is the last word.
  const Value* command = request.find("execute");
  const std::string name = command == nullptr ? std::string() : command->scalar_text();
  if (daemon_.stop().requested() && (name == "quit" || name == kRestartCommand)) {
    client.quits = true;
    daemon_.add_last_word([this, client = client_, reply] { send(*client, reply); });
    co_return;
  }
  send(client, reply);
}

}  // namespace cairn::daemon
