#include "net/qmp_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>

#include "async/async.h"
#include "net/stream.h"
#include "support.h"

namespace cairn {
namespace {

using namespace std::chrono_literals;

constexpr auto kLong = 60s;

// The other end of a client: says lines, and reads requests.
class ScriptedServer {
 public:
  ScriptedServer() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    client_ = Socket(fds[0]);
    stream_ = std::make_unique<Stream>(Socket(fds[1]));
  }
  Socket client() { return std::move(client_); }
  Task<void> say(std::string text) {
    const ByteSpan bytes(reinterpret_cast<const std::byte*>(text.data()), text.size());
    co_await stream_->write_all(bytes);
  }
  Task<Value> hear() {
    while (true) {
      if (auto item = input_.next()) co_return std::move(item->value);
      std::array<std::byte, 4096> bytes;
      const size_t got = co_await stream_->read_some(bytes);
      if (got == 0) throw Error(ErrorKind::kIo, "the client has gone");
      input_.feed({reinterpret_cast<const char*>(bytes.data()), got});
    }
  }
  // Greets and answers the negotiation.
  Task<void> greet() {
    co_await say("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
    const Value request = co_await hear();
    EXPECT_EQ(request.find("execute")->scalar_text(), "qmp_capabilities");
    co_await say("{\"return\": {}, \"id\": 1}\r\n");
  }
  void hang_up() { stream_->abort(); }

 private:
  Socket client_;
  std::unique_ptr<Stream> stream_;
  JsonStream input_;
};

Deadline qmp_test_limit() { return std::chrono::steady_clock::now() + kLong; }

template <class Script>
void with_server(Script script) {
  Runtime runtime({.engine = testing_support::engine_under_test()});
  runtime.run(script());
}

TEST(QmpClient, RunsCommandsAndKeepsEvents) {
  with_server([]() -> Task<void> {
    ScriptedServer server;
    TaskGroup group;
    group.spawn(server.greet());
    auto client = co_await QmpClient::negotiate(server.client(), nullptr, qmp_test_limit());
    co_await group.join();
    EXPECT_NE(client->greeting().find("version"), nullptr);
    co_await server.say("{\"event\": \"A\"}\r\n{\"QMP\": {}}\r\n{\"return\": 1, \"id\": 1}\r\n");
    co_await server.say("{\"return\": {\"x\": 5},\n \"id\": 2}\r\n{\"event\": \"B\"}");
    Value arguments = Value::object();
    arguments.set("device", "d");
    const Value result = co_await client->execute("do-it", arguments, qmp_test_limit());
    EXPECT_EQ(result.compact(), "{\"x\": 5}");
    const Value request = co_await server.hear();
    EXPECT_EQ(request.compact(), R"({"execute": "do-it", "arguments": {"device": "d"}, "id": 2})");
    const auto first = co_await client->next_event(qmp_test_limit());
    const auto second = co_await client->next_event(qmp_test_limit());
    EXPECT_EQ(first->find("event")->scalar_text(), "A");
    EXPECT_EQ(second->find("event")->scalar_text(), "B");
    const auto none = co_await client->next_event(std::chrono::steady_clock::now());
    EXPECT_FALSE(none.has_value());
  });
}

Task<std::string> failure_of(QmpClient& client, const char* command) {
  std::string said;
  try {
    co_await client.execute(command, Value::object(), qmp_test_limit());
  } catch (const QmpRefusal& error) {
    said = error.error_class() + ": " + error.message();
  } catch (const Error& error) {
    said = error.message();
  }
  co_return said;
}

TEST(QmpClient, ReportsRefusalsAndStrangers) {
  with_server([]() -> Task<void> {
    ScriptedServer server;
    TaskGroup group;
    group.spawn(server.greet());
    auto client = co_await QmpClient::negotiate(server.client(), nullptr, qmp_test_limit());
    co_await group.join();
    co_await server.say(
        "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"gone\"}, \"id\": 2}\n");
    const std::string refused = co_await failure_of(*client, "a");
    EXPECT_EQ(refused, "DeviceNotFound: gone");
    co_await server.say("[" + std::string(1000, '[') + "\n");
    const std::string nested = co_await failure_of(*client, "b");
    EXPECT_NE(nested.find("does not speak QMP"), std::string::npos) << nested;
    server.hang_up();
    const std::string gone = co_await failure_of(*client, "c");
    EXPECT_NE(gone.find("QMP"), std::string::npos) << gone;
  });
}

TEST(QmpClient, GoesOnAfterACancellation) {
  with_server([]() -> Task<void> {
    ScriptedServer server;
    TaskGroup group;
    group.spawn(server.greet());
    CancelSource cancel;
    auto client = co_await QmpClient::negotiate(server.client(), &cancel, qmp_test_limit());
    co_await group.join();
    cancel.request();
    const std::string said = co_await failure_of(*client, "slow");
    EXPECT_EQ(said, "cancelled");
    client->finish_within(60s);
    co_await server.say("{\"return\": {}, \"id\": 2}\n{\"return\": [], \"id\": 3}\n");
    const Value result = co_await client->execute("next", Value::object(), qmp_test_limit());
    EXPECT_TRUE(result.is_array());
  });
}

TEST(QmpClient, GivesUpAtTheDeadline) {
  with_server([]() -> Task<void> {
    ScriptedServer server;
    int number = 0;
    try {
      const Deadline soon = std::chrono::steady_clock::now() + 20ms;
      co_await QmpClient::negotiate(server.client(), nullptr, soon);
    } catch (const Error& error) {
      number = error.error_number();
    }
    EXPECT_EQ(number, ETIMEDOUT);
  });
}

TEST(QmpClient, ParsesAddresses) {
  EXPECT_EQ(QmpClient::parse_address("qmp.sock"), SocketAddress::unix_path("qmp.sock"));
  EXPECT_EQ(QmpClient::parse_address("/run/a:1"), SocketAddress::unix_path("/run/a:1"));
  EXPECT_EQ(QmpClient::parse_address("unix:a:1"), SocketAddress::unix_path("a:1"));
  EXPECT_EQ(QmpClient::parse_address("h:20001"), SocketAddress::inet("h", "20001"));
  EXPECT_EQ(QmpClient::parse_address("tcp:[::1]:20001"), SocketAddress::inet("::1", "20001"));
  EXPECT_THROW(QmpClient::parse_address("tcp:host"), Error);
}

}  // namespace
}  // namespace cairn
