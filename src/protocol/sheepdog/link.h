#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "block/server_watch.h"
#include "net/address.h"
#include "protocol/repaired_link.h"
#include "protocol/sheepdog/connection.h"

namespace cairn::sheepdog {

// Where a cluster is reached, and for how long it may be silent.
struct Target {
  std::vector<SocketAddress> servers;  // daemons of one cluster, in the order of their use
  std::chrono::milliseconds timeout{30'000};
  std::shared_ptr<ServerWatch> server = {};  // where reconnecting is said
  const CancelSource* cancel = nullptr;      // ends the work; null: nothing does
};

// One line to a cluster that is repaired when it breaks. Requests of a lost connection are sent
// again to the same daemon or, when that is gone, to the next one, until the timeout of the request
// has passed. A daemon that breaks the protocol is not asked again.
class Link : public RepairedLink<Connection> {
 public:
  Link(const Target& target, Worker& worker)
      : RepairedLink(worker, target.cancel), target_(target) {}

  // The first connection. Throws what the last one of the servers said.
  Task<void> open();
  // Gives the answer in the operation. Throws kIo when there is none before the timeout, or when
  // the connection was lost and the operation cannot be repeated.
  Task<void> perform(Operation& operation);
  // Every later connection locks the VDI of this NAME again while it is still VDI.
  void keep_lock(std::string name, uint32_t vdi) {
    locked_ = std::move(name);
    locked_vdi_ = vdi;
  }

 protected:
  Task<void> connect() override;

 private:
  using Clock = std::chrono::steady_clock;
  std::chrono::milliseconds stall() const;
  Task<void> reconnect(std::shared_ptr<Connection> old);
  Task<void> lock_again(std::shared_ptr<Connection> connection);
  void lose(const std::shared_ptr<Connection>& connection);

  const Target& target_;
  size_t server_ = 0;   // the one in use
  std::string locked_;  // empty: nothing
  uint32_t locked_vdi_ = 0;
  std::chrono::milliseconds pause_{0};
};

}  // namespace cairn::sheepdog
