#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "platform/posix/socket_kinds.h"

namespace cairn::platform {
namespace {

// FD with what other systems set when a socket is made; a signal would end the program when a peer
// has gone.
int prepared(int fd) {
  if (fd < 0) return fd;
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
  keep_from_programs(fd);
  set_nonblocking(fd);
  return fd;
}

}  // namespace

const short kPeerClosed = POLLHUP;
const int kNoSignal = 0;

int stream_socket(int family, bool multipath) {
  if (family == AF_UNSPEC || multipath) {
    errno = multipath ? EPROTONOSUPPORT : EAFNOSUPPORT;
    return -1;
  }
  return prepared(::socket(family, SOCK_STREAM, 0));
}

int accept_stream(int listener) { return prepared(::accept(listener, nullptr, nullptr)); }

// Of no family: opening such a socket says that there are none.
SocketName vsock_name(uint32_t, uint32_t) { return {}; }

bool is_vsock(const sockaddr&) { return false; }

NameText vsock_text(const SocketName&) { return {}; }

}  // namespace cairn::platform
