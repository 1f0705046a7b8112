#pragma once

#include "async/task.h"
#include "base/bell.h"
#include "net/socket.h"

namespace cairn {

// A descriptor that is ready while the gate is open, so that a wait for it can have a deadline.
// Opened and shut from any thread; any number of coroutines wait.
class Gate {
 public:
  // Shut. Throws what the system says.
  Gate() = default;
  Gate(const Gate&) = delete;
  void open();
  void shut();
  // False when DEADLINE passed first.
  Task<bool> wait(Deadline deadline);

 private:
  Bell bell_;
};

}  // namespace cairn
