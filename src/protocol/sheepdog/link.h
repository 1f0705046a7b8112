#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "async/sync.h"
#include "async/task_group.h"
#include "net/address.h"
#include "net/gate.h"
#include "protocol/sheepdog/connection.h"

namespace cairn::sheepdog {

// Where a cluster is reached, and how long its silence is borne.
struct Target {
  std::vector<SocketAddress> servers;  // daemons of one cluster, in the order of their use
  std::chrono::milliseconds timeout{30'000};
};

// One line to a cluster that is repaired when it breaks. Belongs to one worker, on which all of its
// methods are called. Requests of a lost connection are sent again to the same daemon or, when that
// is gone, to the next one, until the timeout of the request has passed. A daemon that breaks the
// protocol is not asked again.
class Link {
 public:
  Link(const Target& target, Worker& worker) : target_(target), worker_(worker) {}
  Worker& worker() const { return worker_; }

  // The first connection. Throws what the last one of the servers said.
  Task<void> open();
  // Opens unless that was tried before. False when there is no connection to be had.
  Task<bool> open_once();
  // Gives the answer in the operation. Throws kIo when there is none before the timeout, or when
  // the connection was lost and the operation cannot be repeated.
  Task<void> perform(Operation& operation);
  // Every later connection locks the VDI of this NAME again while it is still VDI.
  void keep_lock(std::string name, uint32_t vdi) {
    locked_ = std::move(name);
    locked_vdi_ = vdi;
  }
  // No connection is made any more; one that is there is used further.
  void stop_repairs();
  Task<void> close();

 private:
  using Clock = std::chrono::steady_clock;
  std::chrono::milliseconds stall() const;
  Task<void> connect();
  Task<void> reconnect(std::shared_ptr<Connection> old);
  Task<void> lock_again(std::shared_ptr<Connection> connection);
  void lose(const std::shared_ptr<Connection>& connection);

  const Target& target_;
  Worker& worker_;
  size_t server_ = 0;  // the one in use
  std::shared_ptr<Connection> connection_;
  Mutex opening_;
  bool tried_ = false;
  bool opened_ = false;
  bool closing_ = false;
  std::string locked_;  // empty: nothing
  uint32_t locked_vdi_ = 0;
  std::string fatal_;   // why there will never be a connection again
  std::string reason_;  // why there is none
  std::chrono::milliseconds pause_{0};
  std::unique_ptr<Gate> arrived_, stop_;
  TaskGroup background_;
};

}  // namespace cairn::sheepdog
