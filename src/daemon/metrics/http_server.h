#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "async/task_group.h"
#include "daemon/metrics/http_request.h"
#include "net/socket.h"
#include "net/stream.h"

namespace cairn::daemon {

// Serves the page /metrics to anybody who connects. Clients are bounded in number, time and memory:
// of too many the one that has been silent longest is let go. Belongs to the worker on which it is
// made.
class HttpServer {
 public:
  static constexpr size_t kMostClients = 32;
  // From the first byte of a request to its end, and for fetching a reply.
  static constexpr std::chrono::seconds kRequestTime{10};
  // Between two requests on a connection.
  static constexpr std::chrono::seconds kIdleTime{150};

  // Accepts at LISTENERS from now on. PAGE makes what is served; it must not suspend the worker for
  // long.
  HttpServer(std::vector<Socket> listeners, std::function<std::string()> page);
  HttpServer(const HttpServer&) = delete;

  // Ends all connections. Once, before the server goes.
  Task<void> stop();

 private:
  struct Client {
    explicit Client(Socket socket) : stream(std::move(socket)) {}
    Stream stream;
    std::chrono::steady_clock::time_point active = std::chrono::steady_clock::now();
    std::string input;  // what has come and was not answered
  };
  using Clients = std::list<Client>;

  Task<void> accept_on(const Socket& listener);
  Task<void> serve(Clients::iterator client);
  Task<void> talk(Client& client);
  Task<bool> read_head(Client& client, size_t& length);
  Task<bool> answer(Client& client, std::string_view head);
  void let_one_go();

  std::vector<Socket> listeners_;
  std::function<std::string()> page_;
  bool stopping_ = false;
  Clients clients_;
  TaskGroup tasks_;
};

}  // namespace cairn::daemon
