#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>

#include "platform/posix/socket_kinds.h"

namespace cairn::platform {

const short kPeerClosed = POLLRDHUP;
const int kNoSignal = MSG_NOSIGNAL;

int stream_socket(int family, bool multipath) {
  return ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                  multipath ? IPPROTO_MPTCP : 0);
}

int accept_stream(int listener) {
  return ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

bool is_vsock(const sockaddr& address) { return address.sa_family == AF_VSOCK; }

SocketName vsock_name(uint32_t cid, uint32_t port) {
  SocketName name;
  name.family = SocketName::Family::kVsock;
  name.length = sizeof(sockaddr_vm);
  auto* address = reinterpret_cast<sockaddr_vm*>(name.bytes.data());
  address->svm_family = AF_VSOCK;
  address->svm_cid = cid;
  address->svm_port = port;
  return name;
}

NameText vsock_text(const SocketName& name) {
  const auto* address = reinterpret_cast<const sockaddr_vm*>(name.bytes.data());
  NameText text;
  text.host = std::to_string(address->svm_cid);
  text.port = std::to_string(address->svm_port);
  return text;
}

}  // namespace cairn::platform
