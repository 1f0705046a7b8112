// src/daemon/metrics: the numbers of a daemon for monitoring systems, over HTTP in the text format
// of Prometheus. What is shown is in collect.cc, how it is written in exposition.h, who may ask how
// in http_request.h and http_server.h. May include all of src/daemon.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "daemon/metrics/http_server.h"
#include "net/address.h"

namespace cairn::daemon {

class Daemon;

// The metrics of DAEMON as they are now. On its worker.
std::string collect_metrics(Daemon& daemon);

// Where the metrics of a daemon are fetched, of which there is one place at most. On the daemon's
// worker.
class MetricsService {
 public:
  explicit MetricsService(Daemon& daemon) : daemon_(daemon) {}

  // Listens at ADDRESS, counts requests from now on, and answers. Throws "Metrics are served
  // already", or what the system says.
  Task<void> start(SocketAddress address);
  // Cuts off who is there, and removes the socket's file. Nothing happens when it does not run.
  Task<void> stop();
  // Where it listens; nothing when it does not run.
  std::optional<SocketAddress> address() const;

 private:
  Daemon& daemon_;
  std::unique_ptr<HttpServer> server_;
  SocketAddress address_;
};

}  // namespace cairn::daemon
