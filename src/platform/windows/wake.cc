#include "platform/wake.h"

#include <cerrno>

#include "platform/file.h"
#include "platform/windows/sockets.h"

namespace cairn::platform {
namespace {

// A socket that is bound to an address of its own, which is stored in ADDRESS; INVALID_SOCKET when
// there is none left.
SOCKET bound_socket(sockaddr_in& address) {
  const SOCKET made = ::socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
  if (made == INVALID_SOCKET) return made;
  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  int length = sizeof address;
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  if (::bind(made, name, length) == 0 && ::getsockname(made, name, &length) == 0) return made;
  const int failed = ::WSAGetLastError();
  ::closesocket(made);
  ::WSASetLastError(failed);
  return INVALID_SOCKET;
}

bool connect_to(SOCKET socket, const sockaddr_in& address) {
  return ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

// Two sockets that know each other alone: nothing else can be waited for together with sockets. The
// one that is read from never blocks. The one that is written to does: a socket that does not may
// refuse a byte although there is room, while another thread waits for it.
Wake::Wake() {
  start_sockets();
  sockaddr_in reading{};
  sockaddr_in writing{};
  const SOCKET reader = bound_socket(reading);
  const SOCKET writer = reader != INVALID_SOCKET ? bound_socket(writing) : INVALID_SOCKET;
  u_long nonblocking = 1;
  if (writer == INVALID_SOCKET || !connect_to(reader, writing) || !connect_to(writer, reading) ||
      ::ioctlsocket(reader, FIONBIO, &nonblocking) != 0) {
    fail(static_cast<DWORD>(::WSAGetLastError()));
    if (reader != INVALID_SOCKET) ::closesocket(reader);
    if (writer != INVALID_SOCKET) ::closesocket(writer);
    return;
  }
  read_end_ = add_descriptor(Descriptor::Kind::kSocket, reader);
  write_end_ = add_descriptor(Descriptor::Kind::kSocket, writer);
  if (write_end_ >= 0) return;
  // The table is full.
  if (read_end_ >= 0) platform::close(read_end_);
  read_end_ = -1;
  errno = EMFILE;
}

Wake::~Wake() {
  if (read_end_ >= 0) platform::close(read_end_);
  if (write_end_ >= 0) platform::close(write_end_);
}

void Wake::ring() const noexcept {
  const int before = errno;
  const char one = 1;
  // What does not fit any more is dropped: others are there already.
  static_cast<void>(::send(socket_of(write_end_), &one, 1, 0));
  errno = before;
}

void Wake::clear() const noexcept {
  char rings[64];
  while (::recv(socket_of(read_end_), rings, sizeof rings, 0) > 0) {
  }
}

}  // namespace cairn::platform
