#pragma once

#include <functional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/value.h"
#include "net/socket.h"

namespace cairn::daemon {

class Daemon;

// A process that was started to take over. The program of the daemon knows how.
struct SuccessorProcess {
  int pid = -1;
  Socket link;  // to the successor
};
// Starts one, which gets DESCRIPTORS in this order after its end of the link. Throws what the
// system says.
using StartSuccessor = std::function<SuccessorProcess(const std::vector<int>& descriptors)>;

// The name of the command that does it.
inline constexpr const char* kRestartCommand = "x-restart";

// Lets a new process of the program take over everything, under the lock of commands: objects,
// nodes, exports, sockets; clients of exports are cut off when their requests have been answered
// and those that connect meanwhile are served by the successor. Then the daemon is to end. Throws
// why it does not work; the daemon serves on as before then, but for the clients that it has cut
// off.
Task<Value> restart(Daemon& daemon);

// Does it when a descriptor says so, an eventfd, which stays open. On the daemon's worker.
class RestartSignal {
 public:
  RestartSignal(Daemon& daemon, int descriptor) : daemon_(daemon), descriptor_(descriptor) {}

  // Until stop(). Throws nothing: what happens is reported.
  Task<void> serve();
  void stop();

 private:
  Daemon& daemon_;
  const int descriptor_;
  bool stopping_ = false;
};

}  // namespace cairn::daemon
