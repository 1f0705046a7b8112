#include "control/reload_signal.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "operation/operation.h"

namespace cairn::control {
namespace {

std::atomic<int> reload_descriptor{-1};

void on_reload(int) {
  const int before = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(reload_descriptor.load(), &one, sizeof one);
  errno = before;
}

}  // namespace

int catch_reload_signal() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw Error::system(errno, "eventfd");
  reload_descriptor.store(fd);
  struct sigaction action = {};
  action.sa_handler = on_reload;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGHUP, &action, nullptr);
  return fd;
}

}  // namespace cairn::control
