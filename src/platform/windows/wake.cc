#include "platform/wake.h"

#include <cerrno>

#include "platform/file.h"
#include "platform/windows/sockets.h"

namespace cairn::platform {

// A socket that sends to itself: nothing else can be waited for together with sockets.
Wake::Wake() {
  start_sockets();
  const SOCKET own = ::socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
  if (own == INVALID_SOCKET) {
    fail(static_cast<DWORD>(::WSAGetLastError()));
    return;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  int length = sizeof address;
  u_long nonblocking = 1;
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  if (::bind(own, name, length) != 0 || ::getsockname(own, name, &length) != 0 ||
      ::connect(own, name, length) != 0 || ::ioctlsocket(own, FIONBIO, &nonblocking) != 0) {
    fail(static_cast<DWORD>(::WSAGetLastError()));
    ::closesocket(own);
    return;
  }
  read_end_ = write_end_ = add_descriptor(Descriptor::Kind::kSocket, own);
}

Wake::~Wake() {
  if (read_end_ >= 0) platform::close(read_end_);
}

void Wake::ring() const noexcept {
  const int before = errno;
  const char one = 1;
  // It can only refuse when many are there already.
  static_cast<void>(::send(socket_of(write_end_), &one, 1, 0));
  errno = before;
}

void Wake::clear() const noexcept {
  char rings[64];
  while (::recv(socket_of(read_end_), rings, sizeof rings, 0) > 0) {
  }
}

}  // namespace cairn::platform
