#pragma once

#include <vector>

#include "async/task.h"
#include "base/value.h"
#include "daemon/handover/link.h"

namespace cairn::daemon {

class Daemon;

// What a new process does to take over from the daemon that started it; restart() is the other
// side. On the worker of the new daemon, one call after the other.
class Succession {
 public:
  // LINK leads to the other daemon, DESCRIPTORS are the sockets that it handed over, in order.
  Succession(Socket link, std::vector<int> descriptors)
      : link_(std::move(link)), descriptors_(std::move(descriptors)) {}

  // Takes over everything but the disks, and then those, when the other daemon has closed them.
  // Nobody is served yet. Throws what fails, which the other daemon gets to know.
  Task<void> take_over(Daemon& daemon);
  // Says that all is there, and returns when the other daemon knows, or has ended: it ends this
  // process itself where it does not want it.
  Task<void> finish(Daemon& daemon);
  // Says why there is no succession. Nothing that has a name goes with DAEMON.
  Task<void> give_up(Daemon& daemon, std::string reason);

 private:
  void take_sockets(Daemon& daemon, const Value& sockets);
  Link link_;
  const std::vector<int> descriptors_;
};

}  // namespace cairn::daemon
