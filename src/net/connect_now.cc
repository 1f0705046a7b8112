#include "net/connect_now.h"

#include <fmt/core.h>

#include <cerrno>

#include "base/error.h"
#include "platform/poll.h"
#include "platform/socket.h"

namespace cairn {
namespace {

constexpr int kMomentMs = 100;

// 0, or why FD is not connected.
int finish_connecting(int fd, Deadline deadline, const std::function<void()>& check) {
  for (;;) {
    check();
    pollfd ready{fd, POLLOUT, 0};
    if (platform::poll({&ready, 1}, kMomentMs) > 0) return platform::connection_error(fd);
    if (std::chrono::steady_clock::now() >= deadline) return ETIMEDOUT;
  }
}

}  // namespace

OwnFd connect_now(const SocketAddress& address, Deadline deadline,
                  const std::function<void()>& check) {
  const bool v4 = address.ipv4.value_or(false);
  const bool v6 = address.ipv6.value_or(false);
  std::string why;
  const auto names = platform::resolve({.host = address.host,
                                        .port = address.port,
                                        .numeric = address.numeric,
                                        .v4 = v4 || !v6,
                                        .v6 = v6 || !v4},
                                       &why);
  if (names.empty())
    throw Error(ErrorKind::kIo,
                fmt::format("address resolution failed for {}: {}", address.text(), why));
  int reason = ECONNREFUSED;
  for (const platform::SocketName& name : names) {
    OwnFd fd(platform::open_socket(name));
    if (!fd) {
      reason = errno;
      continue;
    }
    reason = 0;
    if (platform::connect(fd.get(), name) != 0) reason = errno;
    if (reason == EINPROGRESS) reason = finish_connecting(fd.get(), deadline, check);
    if (reason != 0) continue;
    platform::set_no_delay(fd.get());
    return fd;
  }
  throw Error::system(reason, "Failed to connect to '" + address.text() + "'");
}

}  // namespace cairn
