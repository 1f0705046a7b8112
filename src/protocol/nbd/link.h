#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/sync.h"
#include "async/task_group.h"
#include "net/address.h"
#include "net/gate.h"
#include "protocol/nbd/connection.h"
#include "protocol/nbd/handshake.h"

namespace cairn::nbd::client {

// Where the export is and how long its absence is borne.
struct Target {
  SocketAddress address;
  Wish wish;
  std::chrono::seconds reconnect_delay{0};
  std::chrono::seconds open_timeout{0};
};

// One line to the server that is repaired when it breaks. Belongs to one worker, on which all of
// its methods are called. When a connection is lost, requests wait for reconnect_delay and are then
// sent again on the new one, which is harmless: every command may be repeated. Later they fail at
// once until a connection is there again; attempts go on until the link is closed. A server that
// breaks the protocol, or comes back as another, is not asked again.
class Link {
 public:
  // ACCEPT looks at what each connection agreed on, and throws kInvalid when it does not fit.
  Link(const Target& target, Worker& worker, std::function<void(const Agreement&)> accept)
      : target_(target), worker_(worker), accept_(std::move(accept)) {}
  Worker& worker() const { return worker_; }

  // The first connection; further attempts are made until open_timeout has passed. Throws.
  Task<void> open();
  // Opens unless that was tried before. False when there is no connection to be had.
  Task<bool> open_once();
  // Throws kIo when there is no connection; an error of the server's is in the operation.
  Task<void> perform(Operation& operation);
  Task<void> close();

 private:
  Task<void> connect();
  Task<void> reconnect(std::shared_ptr<Connection> old);
  void lose(const std::shared_ptr<Connection>& connection);

  const Target& target_;
  Worker& worker_;
  std::function<void(const Agreement&)> accept_;
  std::shared_ptr<Connection> connection_;
  Stream* attempt_ = nullptr;  // whose handshake is under way
  Mutex opening_;
  bool tried_ = false;
  bool opened_ = false;
  bool closing_ = false;
  std::string fatal_;   // why there will never be a connection again
  std::string reason_;  // why there is none
  Deadline give_up_{};  // requests without a connection wait until then
  std::unique_ptr<Gate> arrived_, stop_;
  TaskGroup background_;
};

}  // namespace cairn::nbd::client
