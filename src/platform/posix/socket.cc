#include "platform/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "platform/file.h"
#include "platform/posix/socket_kinds.h"

namespace cairn::platform {
namespace {

const sockaddr* address_of(const SocketName& name) {
  return reinterpret_cast<const sockaddr*>(name.bytes.data());
}

// After the system has filled NAME.
void note_family(SocketName& name) {
  switch (address_of(name)->sa_family) {
    case AF_INET:
      name.family = SocketName::Family::kInet4;
      break;
    case AF_INET6:
      name.family = SocketName::Family::kInet6;
      break;
    case AF_UNIX:
      name.family = SocketName::Family::kUnix;
      break;
    default:
      name.family =
          is_vsock(*address_of(name)) ? SocketName::Family::kVsock : SocketName::Family::kOther;
  }
}

bool named_by(int (*call)(int, sockaddr*, socklen_t*), int fd, SocketName* name) {
  socklen_t length = static_cast<socklen_t>(name->bytes.size());
  if (call(fd, reinterpret_cast<sockaddr*>(name->bytes.data()), &length) != 0) return false;
  name->length = length;
  note_family(*name);
  return true;
}

void set_option(int fd, int level, int option, int value) {
  // Fails on what is no such socket, which does no harm.
  ::setsockopt(fd, level, option, &value, sizeof value);
}

NameText unix_text(const SocketName& name) {
  NameText text;
  const auto* local = reinterpret_cast<const sockaddr_un*>(name.bytes.data());
  const size_t length =
      name.length - std::min<size_t>(name.length, offsetof(sockaddr_un, sun_path));
  text.abstract = length > 0 && local->sun_path[0] == 0;
  text.path = text.abstract ? std::string(local->sun_path + 1, length - 1)
                            : std::string(local->sun_path, ::strnlen(local->sun_path, length));
  return text;
}

}  // namespace

std::vector<SocketName> resolve(const InetQuery& query, std::string* why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (query.passive ? AI_PASSIVE : 0) | (query.numeric ? AI_NUMERICHOST : 0);
  hints.ai_family = query.v4 && query.v6 ? AF_UNSPEC : query.v4 ? AF_INET : AF_INET6;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(query.host.empty() ? nullptr : query.host.c_str(),
                                  query.port.c_str(), &hints, &list);
  std::vector<SocketName> names;
  if (error != 0) {
    *why = ::gai_strerror(error);
    return names;
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    SocketName name;
    if (entry->ai_addrlen > name.bytes.size()) continue;
    name.length = entry->ai_addrlen;
    name.multipath = query.multipath;
    std::memcpy(name.bytes.data(), entry->ai_addr, entry->ai_addrlen);
    note_family(name);
    names.push_back(name);
  }
  ::freeaddrinfo(list);
  return names;
}

size_t unix_path_room() { return sizeof sockaddr_un{}.sun_path; }

SocketName unix_name(const std::string& path, bool abstract, bool tight) {
  SocketName name;
  name.family = SocketName::Family::kUnix;
  auto* address = reinterpret_cast<sockaddr_un*>(name.bytes.data());
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path + (abstract ? 1 : 0), path.data(), path.size());
  name.length = static_cast<unsigned>(
      abstract && tight ? offsetof(sockaddr_un, sun_path) + 1 + path.size() : sizeof *address);
  return name;
}

NameText text_of(const SocketName& name) {
  if (name.family == SocketName::Family::kUnix) return unix_text(name);
  if (name.family == SocketName::Family::kVsock) return vsock_text(name);
  NameText text;
  char host[NI_MAXHOST] = "";
  ::getnameinfo(address_of(name), name.length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  text.host = host;
  text.port = std::to_string(port_of(name));
  return text;
}

uint16_t port_of(const SocketName& name) {
  if (name.family == SocketName::Family::kInet4)
    return ntohs(reinterpret_cast<const sockaddr_in*>(name.bytes.data())->sin_port);
  if (name.family == SocketName::Family::kInet6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(name.bytes.data())->sin6_port);
  return 0;
}

void set_port(SocketName& name, uint16_t port) {
  if (name.family == SocketName::Family::kInet4)
    reinterpret_cast<sockaddr_in*>(name.bytes.data())->sin_port = htons(port);
  else if (name.family == SocketName::Family::kInet6)
    reinterpret_cast<sockaddr_in6*>(name.bytes.data())->sin6_port = htons(port);
}

int open_socket(const SocketName& name) {
  return stream_socket(address_of(name)->sa_family, name.multipath);
}

int connect(int fd, const SocketName& name) {
  return ::connect(fd, address_of(name), static_cast<socklen_t>(name.length));
}

int connection_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 ? errno : error;
}

int listen_at(int fd, const SocketName& name, int backlog) {
  if (name.family != SocketName::Family::kUnix) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (name.family == SocketName::Family::kInet6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd, address_of(name), static_cast<socklen_t>(name.length)) != 0) return -1;
  return ::listen(fd, backlog);
}

int accept(int fd) { return accept_stream(fd); }

bool local_name(int fd, SocketName* name) { return named_by(::getsockname, fd, name); }
bool peer_name(int fd, SocketName* name) { return named_by(::getpeername, fd, name); }

bool is_socket(int fd) {
  struct stat found = {};
  return ::fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode);
}

void set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void keep_from_programs(int fd) { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

void set_no_delay(int fd) { set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); }
void set_keep_alive(int fd) { set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1); }

ssize_t receive(int fd, void* bytes, size_t count) { return ::recv(fd, bytes, count, 0); }

ssize_t receive(int fd, std::span<const iovec> buffers) {
  return ::readv(fd, buffers.data(), static_cast<int>(std::min(buffers.size(), kMostBuffers)));
}

ssize_t send(int fd, std::span<const iovec> buffers) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(buffers.data());
  message.msg_iovlen = std::min(buffers.size(), kMostBuffers);
  return ::sendmsg(fd, &message, kNoSignal);
}

int shut_down(int fd, End end) {
  return ::shutdown(fd, end == End::kRead ? SHUT_RD : end == End::kWrite ? SHUT_WR : SHUT_RDWR);
}

bool peer_has_left(int fd) {
  pollfd one{fd, kPeerClosed, 0};
  return ::poll(&one, 1, 0) == 1 && (one.revents & (kPeerClosed | POLLHUP | POLLERR)) != 0;
}

}  // namespace cairn::platform
