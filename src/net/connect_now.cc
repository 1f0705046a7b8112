#include "net/connect_now.h"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "base/error.h"

namespace cairn {
namespace {

constexpr int kMomentMs = 100;

// 0, or why FD is not connected.
int finish_connecting(int fd, Deadline deadline, const std::function<void()>& check) {
  for (;;) {
    check();
    pollfd ready{fd, POLLOUT, 0};
    if (::poll(&ready, 1, kMomentMs) > 0) {
      int reason = 0;
      socklen_t length = sizeof reason;
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &length);
      return reason;
    }
    if (std::chrono::steady_clock::now() >= deadline) return ETIMEDOUT;
  }
}

}  // namespace

OwnFd connect_now(const SocketAddress& address, Deadline deadline,
                  const std::function<void()>& check) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = address.numeric ? AI_NUMERICHOST : 0;
  if (address.ipv4.value_or(false) != address.ipv6.value_or(false))
    hints.ai_family = address.ipv4.value_or(false) ? AF_INET : AF_INET6;
  addrinfo* list = nullptr;
  const int failed = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list);
  if (failed != 0)
    throw Error(ErrorKind::kIo, fmt::format("address resolution failed for {}: {}", address.text(),
                                            ::gai_strerror(failed)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  int reason = ECONNREFUSED;
  for (const addrinfo* each = list; each != nullptr; each = each->ai_next) {
    OwnFd fd(::socket(each->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      reason = errno;
      continue;
    }
    reason = 0;
    if (::connect(fd.get(), each->ai_addr, each->ai_addrlen) != 0) reason = errno;
    if (reason == EINPROGRESS) reason = finish_connecting(fd.get(), deadline, check);
    if (reason != 0) continue;
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
  }
  throw Error::system(reason, "Failed to connect to '" + address.text() + "'");
}

}  // namespace cairn
