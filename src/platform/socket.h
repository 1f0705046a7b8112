#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "platform/types.h"

namespace cairn::platform {

// Where a socket is or shall be: what the system calls a socket address.
struct SocketName {
  enum class Family { kInet4, kInet6, kUnix, kVsock, kOther };
  alignas(8) std::array<std::byte, 128> bytes{};
  unsigned length = 0;
  Family family = Family::kOther;
  bool multipath = false;
};

struct InetQuery {
  std::string host;  // empty: this machine, or all of its addresses
  std::string port;
  bool passive = false;  // to listen there
  bool numeric = false;  // ask no name server
  bool v4 = true;
  bool v6 = true;
  bool multipath = false;
};
// Asks name servers, and blocks meanwhile. Empty, and WHY says why, where there are none.
std::vector<SocketName> resolve(const InetQuery& query, std::string* why);

// The bytes that the path of a Unix socket may have, its final zero included.
size_t unix_path_room();
// PATH must fit. ABSTRACT: a name without a file, of its own length where TIGHT.
SocketName unix_name(const std::string& path, bool abstract, bool tight);
SocketName vsock_name(uint32_t cid, uint32_t port);

// What a name says, as text: host and port, or cid and port, or the path.
struct NameText {
  std::string host;
  std::string port;
  std::string path;
  bool abstract = false;
};
NameText text_of(const SocketName& name);
uint16_t port_of(const SocketName& name);
void set_port(SocketName& name, uint16_t port);

// Of streams; none blocks. EAFNOSUPPORT: the system has no such sockets.
int open_socket(const SocketName& name);
// 0, or -1 and EINPROGRESS when it is under way: POLLOUT says when it has ended.
int connect(int fd, const SocketName& name);
// How a connection that was under way has ended: an error number, or 0.
int connection_error(int fd);
int listen_at(int fd, const SocketName& name, int backlog);
int accept(int fd);
// False, with errno.
bool local_name(int fd, SocketName* name);
bool peer_name(int fd, SocketName* name);

bool is_socket(int fd);
void set_nonblocking(int fd);
// Programs that are started do not get it.
void keep_from_programs(int fd);
void set_no_delay(int fd);
void set_keep_alive(int fd);

// At most kMostBuffers buffers; no signal where the peer has gone. EAGAIN: not now.
ssize_t receive(int fd, void* bytes, size_t count);
ssize_t receive(int fd, std::span<const iovec> buffers);
ssize_t send(int fd, std::span<const iovec> buffers);

enum class End { kRead, kWrite, kBoth };
int shut_down(int fd, End end);
// Whether the peer will send no more.
bool peer_has_left(int fd);

}  // namespace cairn::platform
