#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace cairn {

class Driver;
class Options;

// How long a server has left a node without an answer. The request layer keeps it, with no more
// than a few atomic operations for a request; who wants to know asks from time to time.
class ServerWatch {
 public:
  using Clock = std::chrono::steady_clock;

  explicit ServerWatch(std::string name) : name_(std::move(name)) {}
  ServerWatch(const ServerWatch&) = delete;

  // The server for people, without credentials.
  const std::string& name() const { return name_; }
  // Since when requests wait and none has ended; nothing while there are none. From any thread.
  std::optional<Clock::time_point> waiting_since() const;
  bool reconnecting() const { return repairs_.load(std::memory_order_relaxed) != 0; }

 private:
  friend class ServerRequest;
  friend class Reconnecting;
  void touch() {
    changed_.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  }

  const std::string name_;
  std::atomic<uint32_t> outstanding_{0};
  std::atomic<uint32_t> repairs_{0};
  std::atomic<Clock::rep> changed_{0};  // when a request last began to wait alone, or ended
};

// A request to the server, as long as this object is there. Null: none. From any thread.
class ServerRequest {
 public:
  explicit ServerRequest(ServerWatch* watch);
  ~ServerRequest();
  ServerRequest(const ServerRequest&) = delete;

 private:
  ServerWatch* watch_;
};

// The connection to the server was lost and is opened again, as long as this object is there. The
// same pointer rules.
class Reconnecting {
 public:
  explicit Reconnecting(std::shared_ptr<ServerWatch> watch);
  ~Reconnecting();
  Reconnecting(const Reconnecting&) = delete;

 private:
  std::shared_ptr<ServerWatch> watch_;
};

// The servers of a context. From any thread.
class Servers {
 public:
  std::shared_ptr<ServerWatch> add(std::string name);

  struct Waiting {
    std::string server;
    std::chrono::milliseconds time{0};
    bool reconnecting = false;
  };
  // Of all servers that are waited for the one that has been silent for the longest time.
  std::optional<Waiting> longest() const;

  // FIRST is called once, on the thread that opens a server, when there is a server to ask about.
  void on_first(std::function<void()> first);

 private:
  mutable std::mutex mutex_;
  std::vector<std::weak_ptr<ServerWatch>> watches_;
  std::function<void()> first_;
};

// What people call the server that DRIVER, which is remote, reaches by OPTIONS of opening: host and
// port, a socket, or the name of the driver where the options do not say it. Throws kInvalid for an
// option of the wrong type.
std::string server_name(const Driver& driver, Options options);

}  // namespace cairn
