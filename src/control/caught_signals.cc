#include "control/caught_signals.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "operation/operation.h"

namespace cairn::control {
namespace {

std::atomic<int> signal_descriptors[_NSIG];

void on_signal(int signal) {
  const int before = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      ::write(signal_descriptors[signal].load(), &one, sizeof one);
  errno = before;
}

}  // namespace

int catch_signal(int signal) {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw Error::system(errno, "eventfd");
  signal_descriptors[signal].store(fd);
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(signal, &action, nullptr);
  return fd;
}

}  // namespace cairn::control
