#pragma once

#include <functional>
#include <memory>
#include <string>

#include "block/server_watch.h"
#include "net/address.h"
#include "protocol/nbd/connection.h"
#include "protocol/nbd/handshake.h"
#include "protocol/repaired_link.h"

namespace cairn::nbd::client {

// Where the export is and for how long it may be absent.
struct Target {
  SocketAddress address;
  Wish wish;
  std::chrono::seconds reconnect_delay{0};
  std::chrono::seconds open_timeout{0};
  std::shared_ptr<ServerWatch> server = {};  // where reconnecting is said
  const CancelSource* cancel = nullptr;      // ends the work; null: nothing does
};

// One line to the server that is repaired when it breaks. When a connection is lost, requests wait
// for reconnect_delay and are then sent again on the new one, which is harmless: every command may
// be repeated. Later they fail at once until a connection is there again; attempts continue until
// the link is closed. A server that breaks the protocol, or comes back as another, is not asked
// again.
class Link : public RepairedLink<Connection> {
 public:
  // ACCEPT gets what each connection agreed on, and throws kInvalid when it does not fit.
  Link(const Target& target, Worker& worker, std::function<void(const Agreement&)> accept)
      : RepairedLink(worker, target.cancel), target_(target), accept_(std::move(accept)) {}

  // The first connection; further attempts are made until open_timeout has passed. Throws.
  Task<void> open();
  // Throws kIo when there is no connection; an error of the server's is in the operation.
  Task<void> perform(Operation& operation);
  Task<void> close();

 protected:
  Task<void> connect() override;
  void cut_attempt() override;

 private:
  Task<void> reconnect(std::shared_ptr<Connection> old);
  void lose(const std::shared_ptr<Connection>& connection);

  const Target& target_;
  std::function<void(const Agreement&)> accept_;
  Stream* attempt_ = nullptr;  // whose handshake is under way
  Deadline give_up_{};         // requests without a connection wait until then
};

}  // namespace cairn::nbd::client
