#include "net/gate.h"

#include "async/runtime.h"
#include "platform/poll.h"

namespace cairn {

void Gate::open() { bell_.ring(); }
void Gate::shut() { bell_.clear(); }
Task<bool> Gate::wait(Deadline deadline) {
  const short events = co_await await_ready(bell_.descriptor(), POLLIN, deadline);
  co_return events != 0;
}

}  // namespace cairn
