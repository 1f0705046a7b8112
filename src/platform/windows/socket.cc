#include "platform/socket.h"

#include <cerrno>
#include <cstring>

#include "platform/windows/sockets.h"
// After the headers of Windows.
#include <mstcpip.h>
#include <ws2tcpip.h>

namespace cairn::platform {
namespace {

int fail_socket() { return fail(static_cast<DWORD>(::WSAGetLastError())); }

const sockaddr* address_of(const SocketName& name) {
  return reinterpret_cast<const sockaddr*>(name.bytes.data());
}

void note_family(SocketName& name) {
  const int family = address_of(name)->sa_family;
  name.family = family == AF_INET    ? SocketName::Family::kInet4
                : family == AF_INET6 ? SocketName::Family::kInet6
                                     : SocketName::Family::kOther;
}

bool named_by(int (*call)(SOCKET, sockaddr*, int*), int fd, SocketName* name) {
  int length = static_cast<int>(name->bytes.size());
  if (call(socket_of(fd), reinterpret_cast<sockaddr*>(name->bytes.data()), &length) != 0) {
    fail_socket();
    return false;
  }
  name->length = static_cast<unsigned>(length);
  note_family(*name);
  return true;
}

int WSAAPI own_name(SOCKET socket, sockaddr* name, int* length) {
  return ::getsockname(socket, name, length);
}
int WSAAPI other_name(SOCKET socket, sockaddr* name, int* length) {
  return ::getpeername(socket, name, length);
}

void set_option(int fd, int level, int option, DWORD value) {
  ::setsockopt(socket_of(fd), level, option, reinterpret_cast<const char*>(&value), sizeof value);
}

int take_socket(SOCKET socket) {
  u_long nonblocking = 1;
  ::ioctlsocket(socket, FIONBIO, &nonblocking);
  return add_descriptor(Descriptor::Kind::kSocket, socket);
}

}  // namespace

void start_sockets() {
  static const bool started = [] {
    WSADATA data{};
    return ::WSAStartup(MAKEWORD(2, 2), &data) == 0;
  }();
  static_cast<void>(started);
}

std::vector<SocketName> resolve(const InetQuery& query, std::string* why) {
  start_sockets();
  ADDRINFOW hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (query.passive ? AI_PASSIVE : 0) | (query.numeric ? AI_NUMERICHOST : 0);
  hints.ai_family = query.v4 && query.v6 ? AF_UNSPEC : query.v4 ? AF_INET : AF_INET6;
  ADDRINFOW* list = nullptr;
  const std::wstring host = widen(query.host);
  const int error = ::GetAddrInfoW(host.empty() ? nullptr : host.c_str(), widen(query.port).c_str(),
                                   &hints, &list);
  std::vector<SocketName> names;
  if (error != 0) {
    *why = "Name or service not known";
    return names;
  }
  for (const ADDRINFOW* entry = list; entry != nullptr; entry = entry->ai_next) {
    SocketName name;
    if (entry->ai_addrlen > name.bytes.size()) continue;
    name.length = static_cast<unsigned>(entry->ai_addrlen);
    std::memcpy(name.bytes.data(), entry->ai_addr, entry->ai_addrlen);
    note_family(name);
    names.push_back(name);
  }
  ::FreeAddrInfoW(list);
  return names;
}

// What has a family of its own cannot be opened: open_socket() says so.
size_t unix_path_room() { return 108; }

SocketName unix_name(const std::string&, bool, bool) {
  return {.family = SocketName::Family::kUnix};
}

SocketName vsock_name(uint32_t, uint32_t) { return {.family = SocketName::Family::kVsock}; }

NameText text_of(const SocketName& name) {
  NameText text;
  char host[NI_MAXHOST] = "";
  ::getnameinfo(address_of(name), static_cast<socklen_t>(name.length), host, sizeof host, nullptr,
                0, NI_NUMERICHOST);
  text.host = host;
  text.port = std::to_string(port_of(name));
  return text;
}

uint16_t port_of(const SocketName& name) {
  if (name.family == SocketName::Family::kInet4)
    return ::ntohs(reinterpret_cast<const sockaddr_in*>(name.bytes.data())->sin_port);
  if (name.family == SocketName::Family::kInet6)
    return ::ntohs(reinterpret_cast<const sockaddr_in6*>(name.bytes.data())->sin6_port);
  return 0;
}

void set_port(SocketName& name, uint16_t port) {
  if (name.family == SocketName::Family::kInet4)
    reinterpret_cast<sockaddr_in*>(name.bytes.data())->sin_port = ::htons(port);
  else if (name.family == SocketName::Family::kInet6)
    reinterpret_cast<sockaddr_in6*>(name.bytes.data())->sin6_port = ::htons(port);
}

int open_socket(const SocketName& name) {
  start_sockets();
  if (name.family != SocketName::Family::kInet4 && name.family != SocketName::Family::kInet6)
    return fail_as(EAFNOSUPPORT);
  const SOCKET made = ::WSASocketW(address_of(name)->sa_family, SOCK_STREAM, IPPROTO_TCP, nullptr,
                                   0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
  return made == INVALID_SOCKET ? fail_socket() : take_socket(made);
}

int connect(int fd, const SocketName& name) {
  if (::connect(socket_of(fd), address_of(name), static_cast<int>(name.length)) == 0) return 0;
  const int error = ::WSAGetLastError();
  return error == WSAEWOULDBLOCK ? fail_as(EINPROGRESS) : fail(static_cast<DWORD>(error));
}

int connection_error(int fd) {
  DWORD error = 0;
  int length = sizeof error;
  if (::getsockopt(socket_of(fd), SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&error), &length) !=
      0)
    error = static_cast<DWORD>(::WSAGetLastError());
  if (error == 0) return 0;
  fail(error);
  return errno;
}

int listen_at(int fd, const SocketName& name, int backlog) {
  const SOCKET socket = socket_of(fd);
  // SO_REUSEADDR would let others take the port over.
  set_option(fd, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
  if (name.family == SocketName::Family::kInet6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(socket, address_of(name), static_cast<int>(name.length)) != 0 ||
      ::listen(socket, backlog) != 0)
    return fail_socket();
  return 0;
}

int accept(int fd) {
  const SOCKET made = ::accept(socket_of(fd), nullptr, nullptr);
  return made == INVALID_SOCKET ? fail_socket() : take_socket(made);
}

bool local_name(int fd, SocketName* name) { return named_by(own_name, fd, name); }
bool peer_name(int fd, SocketName* name) { return named_by(other_name, fd, name); }

bool is_socket(int fd) {
  const Descriptor* const found = find_descriptor(fd);
  return found != nullptr && found->kind == Descriptor::Kind::kSocket;
}

void set_nonblocking(int fd) {
  u_long nonblocking = 1;
  ::ioctlsocket(socket_of(fd), FIONBIO, &nonblocking);
}

// None is inherited.
void keep_from_programs(int) {}

void set_no_delay(int fd) { set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); }
void set_keep_alive(int fd) { set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1); }

ssize_t receive(int fd, std::span<const iovec> buffers) {
  WSABUF parts[16];
  DWORD count = 0;
  for (const iovec& buffer : buffers.first(std::min<size_t>(buffers.size(), std::size(parts))))
    parts[count++] = {static_cast<ULONG>(std::min<size_t>(buffer.iov_len, 1 << 30)),
                      static_cast<char*>(buffer.iov_base)};
  DWORD got = 0;
  DWORD flags = 0;
  if (::WSARecv(socket_of(fd), parts, count, &got, &flags, nullptr, nullptr) != 0)
    return fail_socket();
  return static_cast<ssize_t>(got);
}

ssize_t receive(int fd, void* bytes, size_t count) {
  const iovec one{bytes, count};
  return receive(fd, {&one, 1});
}

ssize_t send(int fd, std::span<const iovec> buffers) {
  WSABUF parts[64];
  DWORD count = 0;
  for (const iovec& buffer : buffers.first(std::min<size_t>(buffers.size(), std::size(parts))))
    parts[count++] = {static_cast<ULONG>(std::min<size_t>(buffer.iov_len, 1 << 30)),
                      static_cast<char*>(buffer.iov_base)};
  DWORD put = 0;
  if (::WSASend(socket_of(fd), parts, count, &put, 0, nullptr, nullptr) != 0) return fail_socket();
  return static_cast<ssize_t>(put);
}

int shut_down(int fd, End end) {
  const int how = end == End::kRead ? SD_RECEIVE : end == End::kWrite ? SD_SEND : SD_BOTH;
  return ::shutdown(socket_of(fd), how) == 0 ? 0 : fail_socket();
}

bool peer_has_left(int fd) {
  WSAPOLLFD one{socket_of(fd), POLLRDNORM, 0};
  if (::WSAPoll(&one, 1, 0) != 1) return false;
  if ((one.revents & (POLLHUP | POLLERR)) != 0) return true;
  char next = 0;
  return ::recv(one.fd, &next, 1, MSG_PEEK) == 0;
}

}  // namespace cairn::platform
