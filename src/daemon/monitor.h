#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "async/task.h"
#include "base/value.h"
#include "daemon/chardev/chardev.h"
#include "daemon/daemon.h"
#include "daemon/outbox.h"

namespace cairn::daemon {

// Speaks QMP with the clients of one character device, one client after the other. Lives on the
// worker of the daemon.
class Monitor {
 public:
  Monitor(Daemon& daemon, Chardev& chardev, bool pretty)
      : daemon_(daemon), chardev_(chardev), pretty_(pretty) {}

  const Chardev& chardev() const { return chardev_; }
  bool pretty() const { return pretty_; }

  // Until the device has no further client, or stop().
  Task<void> run();
  // No further request is read; the client gets what waits for it, within a moment, and is let go.
  void stop();
  // Sends an event when the client has negotiated. From any thread.
  void send_event(const Value& event);

 private:
  struct Client;
  Task<void> talk(std::shared_ptr<Client> client);
  Task<void> write_out(std::shared_ptr<Client> client);
  Task<void> answer(Client& client, Value request);
  Task<Value> obey(Client& client, const Value& request);
  Value negotiate(Client& client, const Value& arguments);
  void send(Client& client, const Value& message);
  Task<void> hurry(std::shared_ptr<Client> client);

  Daemon& daemon_;
  Chardev& chardev_;
  const bool pretty_;
  bool stopping_ = false;
  std::mutex mutex_;  // of client_
  std::shared_ptr<Client> client_;
};

}  // namespace cairn::daemon
