#include "operation/control.h"

#include <chrono>

#include "net/qmp_client.h"

namespace cairn::operation {
namespace {

using namespace std::chrono_literals;

constexpr auto kGreetingLimit = 10s;
// How often a watcher looks around where nothing happens.
constexpr auto kWatchSlice = 60s;

Task<std::unique_ptr<QmpClient>> connect_control(const Caller& caller, std::string address) {
  const Deadline deadline = std::chrono::steady_clock::now() + kGreetingLimit;
  std::unique_ptr<QmpClient> client =
      co_await QmpClient::connect(QmpClient::parse_address(address), &caller.cancel, deadline);
  co_return client;
}

Task<Value> command_task(const Caller& caller, std::string address, std::string command,
                         Value arguments) {
  const std::unique_ptr<QmpClient> client = co_await connect_control(caller, std::move(address));
  Value result = co_await client->execute(std::move(command), std::move(arguments));
  co_return result;
}

Task<void> watch_task(const Caller& caller, std::string address,
                      const std::function<void(const Value& event)>* each) {
  const std::unique_ptr<QmpClient> client = co_await connect_control(caller, std::move(address));
  while (true) {
    const std::optional<Value> event =
        co_await client->next_event(std::chrono::steady_clock::now() + kWatchSlice);
    if (event) (*each)(*event);
  }
}

}  // namespace

Value run_command(const Caller& caller, const std::string& address, const std::string& command,
                  const Value& arguments) {
  return caller.run(command_task(caller, address, command, arguments));
}

void watch_events(const Caller& caller, const std::string& address,
                  const std::function<void(const Value& event)>& each) {
  caller.run(watch_task(caller, address, &each));
}

}  // namespace cairn::operation
