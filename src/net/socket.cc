#include "net/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn {
namespace {

struct Target {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family = AF_UNSPEC;
  int protocol = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

uint32_t number_of(const std::string& text, std::string_view what, uint32_t most) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    throw Error(ErrorKind::kInvalid, fmt::format("Invalid {} '{}'", what, text));
  return value;
}

// Blocks: name servers are asked.
std::vector<Target> resolve_inet(const SocketAddress& address, bool passive) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (passive ? AI_PASSIVE : 0) | (address.numeric ? AI_NUMERICHOST : 0);
  const bool v4 = address.ipv4.value_or(!address.ipv6.value_or(false));
  const bool v6 = address.ipv6.value_or(!address.ipv4.value_or(false));
  if (!v4 && !v6) throw Error(ErrorKind::kInvalid, "Cannot disable IPv4 and IPv6 at same time");
  hints.ai_family = v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
  addrinfo* list = nullptr;
  const char* host = address.host.empty() ? nullptr : address.host.c_str();
  const int error = ::getaddrinfo(host, address.port.c_str(), &hints, &list);
  if (error != 0)
    throw Error(ErrorKind::kIo, fmt::format("address resolution failed for {}: {}", address.text(),
                                            ::gai_strerror(error)));
  std::vector<Target> targets;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    Target target{.length = entry->ai_addrlen, .family = entry->ai_family};
    if (address.mptcp) target.protocol = IPPROTO_MPTCP;
    std::memcpy(&target.storage, entry->ai_addr, entry->ai_addrlen);
    targets.push_back(target);
  }
  ::freeaddrinfo(list);
  return targets;
}

Target unix_target(const SocketAddress& address) {
  Target target{.family = AF_UNIX};
  auto* name = reinterpret_cast<sockaddr_un*>(&target.storage);
  name->sun_family = AF_UNIX;
  const size_t room = sizeof name->sun_path - (address.abstract ? 1 : 0);
  if (address.path.size() > room || (!address.abstract && address.path.size() == room))
    throw Error(ErrorKind::kInvalid, "UNIX socket path '" + address.path + "' is too long")
        .hint(fmt::format("Path must be less than {} bytes", sizeof name->sun_path));
  if (address.path.empty()) throw Error(ErrorKind::kInvalid, "UNIX socket path is empty");
  std::memcpy(name->sun_path + (address.abstract ? 1 : 0), address.path.data(),
              address.path.size());
  target.length =
      address.abstract && address.tight
          ? static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + address.path.size())
          : static_cast<socklen_t>(sizeof *name);
  return target;
}

Target vsock_target(const SocketAddress& address) {
  Target target{.length = sizeof(sockaddr_vm), .family = AF_VSOCK};
  auto* name = reinterpret_cast<sockaddr_vm*>(&target.storage);
  name->svm_family = AF_VSOCK;
  name->svm_cid = number_of(address.cid, "CID", UINT32_MAX);
  name->svm_port = number_of(address.port, "port", UINT32_MAX);
  return target;
}

Task<std::vector<Target>> resolve(SocketAddress address, bool passive) {
  std::vector<Target> targets;
  if (address.kind == SocketAddress::Kind::kUnix)
    targets.push_back(unix_target(address));
  else if (address.kind == SocketAddress::Kind::kVsock)
    targets.push_back(vsock_target(address));
  else
    targets = co_await run_blocking([&] { return resolve_inet(address, passive); });
  co_return targets;
}

void tune(int fd, const SocketAddress& address) {
  const int on = 1;
  if (address.kind == SocketAddress::Kind::kInet) {
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (address.keep_alive) ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
}

int inherited(const SocketAddress& address) {
  const auto fd = static_cast<int>(
      number_of(address.descriptor, "file descriptor", static_cast<uint32_t>(INT32_MAX)));
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode))
    throw Error(ErrorKind::kInvalid,
                "File descriptor '" + address.descriptor + "' is not a socket");
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

// 0 or the error number.
Task<int> connect_one(int fd, const Target& target, Deadline deadline) {
  if (::connect(fd, target.get(), target.length) == 0) co_return 0;
  // A Unix socket whose backlog is full says EAGAIN and has nothing to wait for.
  while (errno == EAGAIN) {
    if (std::chrono::steady_clock::now() >= deadline) co_return ETIMEDOUT;
    co_await sleep_for(std::chrono::milliseconds(10));
    if (::connect(fd, target.get(), target.length) == 0) co_return 0;
  }
  if (errno != EINPROGRESS && errno != EINTR) co_return errno;
  const short events = co_await await_ready(fd, POLLOUT, deadline);
  if (events == 0) co_return ETIMEDOUT;
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) co_return errno;
  co_return error;
}

// One port number for all sockets of a listener.
void set_port(Target& target, uint16_t port) {
  if (target.family == AF_INET)
    reinterpret_cast<sockaddr_in*>(&target.storage)->sin_port = htons(port);
  if (target.family == AF_INET6)
    reinterpret_cast<sockaddr_in6*>(&target.storage)->sin6_port = htons(port);
}
uint16_t port_of(const Target& target) {
  if (target.family == AF_INET)
    return ntohs(reinterpret_cast<const sockaddr_in*>(&target.storage)->sin_port);
  if (target.family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&target.storage)->sin6_port);
  return 0;
}

Socket listen_one(const Target& target, int backlog, int* error) {
  const int fd =
      ::socket(target.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, target.protocol);
  if (fd < 0) {
    *error = errno;
    return {};
  }
  Socket socket(fd);
  const int on = 1;
  if (target.family != AF_UNIX) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (target.family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(fd, target.get(), target.length) != 0 || ::listen(fd, backlog) != 0) {
    *error = errno;
    return {};
  }
  return socket;
}

std::vector<Socket> listen_inet(const SocketAddress& address, std::vector<Target>& targets,
                                int backlog) {
  const uint16_t first = targets.empty() ? uint16_t{0} : port_of(targets.front());
  int error = EADDRNOTAVAIL;
  for (unsigned port = first; port <= std::max<unsigned>(first, address.to.value_or(0)); ++port) {
    std::vector<Socket> sockets;
    uint16_t chosen = static_cast<uint16_t>(port);
    bool busy = false;
    for (Target& target : targets) {
      set_port(target, chosen);
      Socket socket = listen_one(target, backlog, &error);
      if (!socket) {
        busy = busy || error == EADDRINUSE;
        continue;
      }
      if (chosen == 0) {
        const std::string bound = socket.local_address().port;
        chosen = static_cast<uint16_t>(number_of(bound, "port", UINT16_MAX));
      }
      sockets.push_back(std::move(socket));
    }
    if (!sockets.empty() && !busy) return sockets;
  }
  throw Error::system(
      error, error == EADDRINUSE ? "Failed to find an available port" : "Failed to bind socket");
}

}  // namespace

Socket::Socket(int fd) : fd_(fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

SocketAddress Socket::local_address() const {
  Target name{.length = sizeof(sockaddr_storage)};
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&name.storage), &name.length) != 0)
    throw Error::system(errno, "getsockname");
  name.family = name.storage.ss_family;
  if (name.family == AF_UNIX) {
    const auto* local = reinterpret_cast<const sockaddr_un*>(&name.storage);
    const size_t length =
        name.length - std::min<size_t>(name.length, offsetof(sockaddr_un, sun_path));
    SocketAddress address = SocketAddress::unix_path({});
    address.abstract = length > 0 && local->sun_path[0] == 0;
    address.path = address.abstract
                       ? std::string(local->sun_path + 1, length - 1)
                       : std::string(local->sun_path, strnlen(local->sun_path, length));
    return address;
  }
  if (name.family == AF_VSOCK) {
    const auto* local = reinterpret_cast<const sockaddr_vm*>(&name.storage);
    SocketAddress address;
    address.kind = SocketAddress::Kind::kVsock;
    address.cid = std::to_string(local->svm_cid);
    address.port = std::to_string(local->svm_port);
    return address;
  }
  char host[NI_MAXHOST] = "";
  ::getnameinfo(name.get(), name.length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return SocketAddress::inet(host, std::to_string(port_of(name)));
}

std::string Socket::peer_text() const {
  Target name{.length = sizeof(sockaddr_storage)};
  if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&name.storage), &name.length) != 0)
    return "unknown";
  name.family = name.storage.ss_family;
  if (name.family == AF_UNIX) return "local";
  if (name.family == AF_VSOCK) return "vsock";
  char host[NI_MAXHOST] = "";
  ::getnameinfo(name.get(), name.length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return SocketAddress::inet(host, std::to_string(port_of(name))).text();
}

Task<Socket> connect_socket(SocketAddress address, Deadline deadline) {
  if (address.kind == SocketAddress::Kind::kFd) co_return Socket(inherited(address));
  const std::vector<Target> targets = co_await resolve(address, false);
  int error = EADDRNOTAVAIL;
  for (const Target& target : targets) {
    const int fd =
        ::socket(target.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, target.protocol);
    if (fd < 0) {
      error = errno;
      continue;
    }
    Socket socket(fd);
    error = co_await connect_one(fd, target, deadline);
    if (error == 0) {
      tune(fd, address);
      co_return socket;
    }
  }
  throw Error::system(error, "Failed to connect to '" + address.text() + "'");
}

Task<std::vector<Socket>> listen_sockets(SocketAddress address, int backlog) {
  std::vector<Socket> sockets;
  if (address.kind == SocketAddress::Kind::kFd) {
    Socket socket(inherited(address));
    sockets.push_back(std::move(socket));
    co_return sockets;
  }
  std::vector<Target> targets = co_await resolve(address, true);
  if (address.kind == SocketAddress::Kind::kInet) co_return listen_inet(address, targets, backlog);
  if (address.kind == SocketAddress::Kind::kUnix && !address.abstract) {
    struct stat status {};
    if (::lstat(address.path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode))
      ::unlink(address.path.c_str());
  }
  int error = 0;
  Socket socket = listen_one(targets.front(), backlog, &error);
  if (!socket) throw Error::system(error, "Failed to bind socket to " + address.text());
  sockets.push_back(std::move(socket));
  co_return sockets;
}

Socket try_accept(const Socket& listener) {
  while (true) {
    const int fd = ::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      // Fails on what is no TCP socket, which does no harm.
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return Socket(fd);
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    return {};
  }
}

Task<Socket> accept_socket(const Socket& listener) {
  while (true) {
    const short events = co_await await_ready(listener.fd(), POLLIN);
    Socket socket = try_accept(listener);
    if (socket) co_return socket;
    if ((events & POLLHUP) != 0) co_return socket;
    // Out of descriptors: somebody must leave first; the connection waits in the backlog.
    if (errno != EAGAIN) co_await sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace cairn
