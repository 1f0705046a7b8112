#include "net/socket.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "async/runtime.h"
#include "base/error.h"
#include "platform/file.h"
#include "platform/socket.h"

namespace cairn {

using platform::SocketName;

namespace {

// How soon a cancellation is noticed.
constexpr std::chrono::milliseconds kBetweenLooks{100};

uint32_t number_of(const std::string& text, std::string_view what, uint32_t most) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most)
    throw Error(ErrorKind::kInvalid, fmt::format("Invalid {} '{}'", what, text));
  return value;
}

// Blocks: name servers are asked.
std::vector<SocketName> resolve_inet(const SocketAddress& address, bool passive) {
  const platform::InetQuery query{.host = address.host,
                                  .port = address.port,
                                  .passive = passive,
                                  .numeric = address.numeric,
                                  .v4 = address.ipv4.value_or(!address.ipv6.value_or(false)),
                                  .v6 = address.ipv6.value_or(!address.ipv4.value_or(false)),
                                  .multipath = address.mptcp};
  if (!query.v4 && !query.v6)
    throw Error(ErrorKind::kInvalid, "Cannot disable IPv4 and IPv6 at same time");
  std::string why;
  std::vector<SocketName> names = platform::resolve(query, &why);
  if (names.empty())
    throw Error(ErrorKind::kIo,
                fmt::format("address resolution failed for {}: {}", address.text(), why));
  return names;
}

SocketName unix_target(const SocketAddress& address) {
  const size_t all = platform::unix_path_room();
  const size_t room = all - (address.abstract ? 1 : 0);
  if (address.path.size() > room || (!address.abstract && address.path.size() == room))
    throw Error(ErrorKind::kInvalid, "UNIX socket path '" + address.path + "' is too long")
        .hint(fmt::format("Path must be less than {} bytes", all));
  if (address.path.empty()) throw Error(ErrorKind::kInvalid, "UNIX socket path is empty");
  return platform::unix_name(address.path, address.abstract, address.tight);
}

Task<std::vector<SocketName>> resolve(SocketAddress address, bool passive) {
  std::vector<SocketName> names;
  if (address.kind == SocketAddress::Kind::kUnix)
    names.push_back(unix_target(address));
  else if (address.kind == SocketAddress::Kind::kVsock)
    names.push_back(platform::vsock_name(number_of(address.cid, "CID", UINT32_MAX),
                                         number_of(address.port, "port", UINT32_MAX)));
  else
    names = co_await run_blocking([&] { return resolve_inet(address, passive); });
  co_return names;
}

void tune(int fd, const SocketAddress& address) {
  if (address.kind != SocketAddress::Kind::kInet) return;
  platform::set_no_delay(fd);
  if (address.keep_alive) platform::set_keep_alive(fd);
}

int inherited(const SocketAddress& address) {
  const auto fd = static_cast<int>(
      number_of(address.descriptor, "file descriptor", static_cast<uint32_t>(INT32_MAX)));
  if (!platform::is_socket(fd))
    throw Error(ErrorKind::kInvalid,
                "File descriptor '" + address.descriptor + "' is not a socket");
  platform::keep_from_programs(fd);
  return fd;
}

// 0 or the error number.
Task<int> connect_one(int fd, const SocketName& name, Deadline deadline,
                      const CancelSource* cancel) {
  if (platform::connect(fd, name) == 0) co_return 0;
  // A Unix socket whose backlog is full says EAGAIN and has nothing to wait for.
  while (errno == EAGAIN) {
    if (std::chrono::steady_clock::now() >= deadline) co_return ETIMEDOUT;
    if (cancel != nullptr) cancel->check();
    co_await sleep_for(std::chrono::milliseconds(10));
    if (platform::connect(fd, name) == 0) co_return 0;
  }
  if (errno != EINPROGRESS && errno != EINTR) co_return errno;
  while (true) {
    const auto now = std::chrono::steady_clock::now();
    const bool last = cancel == nullptr || deadline - kBetweenLooks < now;
    const Deadline next = last ? deadline : now + kBetweenLooks;
    const short events = co_await await_ready(fd, POLLOUT, next);
    if (events != 0) co_return platform::connection_error(fd);
    if (last) co_return ETIMEDOUT;
    cancel->check();
  }
}

Socket listen_one(const SocketName& name, int backlog, int* error) {
  const int fd = platform::open_socket(name);
  if (fd < 0) {
    *error = errno;
    return {};
  }
  Socket socket(fd);
  if (platform::listen_at(fd, name, backlog) != 0) {
    *error = errno;
    return {};
  }
  return socket;
}

std::vector<Socket> listen_inet(const SocketAddress& address, std::vector<SocketName>& names,
                                int backlog) {
  const uint16_t first = names.empty() ? uint16_t{0} : platform::port_of(names.front());
  int error = EADDRNOTAVAIL;
  for (unsigned port = first; port <= std::max<unsigned>(first, address.to.value_or(0)); ++port) {
    std::vector<Socket> sockets;
    uint16_t chosen = static_cast<uint16_t>(port);
    bool busy = false;
    for (SocketName& name : names) {
      platform::set_port(name, chosen);
      Socket socket = listen_one(name, backlog, &error);
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

Socket::Socket(int fd) : fd_(fd) { platform::set_nonblocking(fd); }

Socket::~Socket() {
  if (fd_ >= 0) platform::close(fd_);
}

SocketAddress Socket::local_address() const {
  SocketName name;
  if (!platform::local_name(fd_, &name)) throw Error::system(errno, "getsockname");
  const platform::NameText text = platform::text_of(name);
  if (name.family == SocketName::Family::kUnix) {
    SocketAddress address = SocketAddress::unix_path(text.path);
    address.abstract = text.abstract;
    return address;
  }
  SocketAddress address = SocketAddress::inet(text.host, text.port);
  if (name.family == SocketName::Family::kVsock) {
    address.kind = SocketAddress::Kind::kVsock;
    address.cid = std::exchange(address.host, {});
  }
  return address;
}

std::string Socket::peer_text() const {
  SocketName name;
  if (!platform::peer_name(fd_, &name)) return "unknown";
  if (name.family == SocketName::Family::kUnix) return "local";
  if (name.family == SocketName::Family::kVsock) return "vsock";
  const platform::NameText text = platform::text_of(name);
  return SocketAddress::inet(text.host, text.port).text();
}

Task<Socket> connect_socket(SocketAddress address, Deadline deadline, const CancelSource* cancel) {
  if (address.kind == SocketAddress::Kind::kFd) co_return Socket(inherited(address));
  const std::vector<SocketName> names = co_await resolve(address, false);
  int error = EADDRNOTAVAIL;
  for (const SocketName& name : names) {
    const int fd = platform::open_socket(name);
    if (fd < 0) {
      error = errno;
      continue;
    }
    Socket socket(fd);
    error = co_await connect_one(fd, name, deadline, cancel);
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
  std::vector<SocketName> names = co_await resolve(address, true);
  if (address.kind == SocketAddress::Kind::kInet) co_return listen_inet(address, names, backlog);
  if (address.kind == SocketAddress::Kind::kUnix && !address.abstract) {
    const auto status = platform::link_status(address.path);
    if (status && status->type == platform::FileType::kSocket) platform::remove(address.path);
  }
  int error = 0;
  Socket socket = listen_one(names.front(), backlog, &error);
  if (!socket) throw Error::system(error, "Failed to bind socket to " + address.text());
  sockets.push_back(std::move(socket));
  co_return sockets;
}

Socket try_accept(const Socket& listener) {
  while (true) {
    const int fd = platform::accept(listener.fd());
    if (fd >= 0) {
      platform::set_no_delay(fd);
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
