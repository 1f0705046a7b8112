#include "net/gate.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn {

Gate::Gate() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw Error::system(errno, "eventfd");
}
Gate::~Gate() { ::close(fd_); }
void Gate::open() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}
void Gate::shut() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);
}
Task<bool> Gate::wait(Deadline deadline) {
  const short events = co_await await_ready(fd_, POLLIN, deadline);
  co_return events != 0;
}

}  // namespace cairn
