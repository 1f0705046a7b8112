#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"
#include "base/value.h"
#include "daemon/event_log.h"
#include "daemon/listening_sockets.h"
#include "export/nbd/server.h"

namespace cairn::daemon {

// The NBD server of a daemon, of which there is one at most. On the daemon's worker.
class NbdService {
 public:
  struct Options {
    SocketAddress address;
    Value arguments;  // of the command, which starts the same again
    std::string tls_creds, tls_authz;
    unsigned most_clients = 100;  // 0: any number
    std::chrono::seconds handshake_limit{10};
  };

  // LOG may be null.
  NbdService(Context& context, ListeningSockets& sockets, std::shared_ptr<EventLog> log)
      : context_(context), sockets_(sockets), log_(std::move(log)) {}

  // Listens and serves from now on. Throws "NBD server already running", or what the system says.
  Task<void> start(Options options);
  // Cuts off what clients are left. Nothing happens when it does not run.
  Task<void> stop();
  // Throws "NBD server not running".
  nbd::server::Server& server();
  bool running() const { return server_ != nullptr; }
  // With which it runs.
  const Options& options() const { return options_; }
  // Several clients see one state, which they learn from the server.
  bool multi_conn() const { return options_.most_clients != 1; }

 private:
  Task<void> serve(std::vector<Socket> listeners);
  Context& context_;
  ListeningSockets& sockets_;
  const std::shared_ptr<EventLog> log_;
  Options options_;
  std::unique_ptr<nbd::server::Server> server_;
  std::unique_ptr<CancelSource> over_;
  std::unique_ptr<TaskGroup> serving_;
};

}  // namespace cairn::daemon
