#include "daemon/inherited.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace cairn::daemon {
namespace {

bool is_number(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_listening(int descriptor) {
  int listening = 0;
  socklen_t size = sizeof listening;
  return ::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
         listening != 0;
}

}  // namespace

void InheritedSockets::add(std::string name, int descriptor) {
  all_.emplace_back(std::move(name), descriptor);
}

std::vector<Socket> InheritedSockets::named(const std::string& name) const {
  std::vector<Socket> sockets;
  std::string known;
  for (const auto& [own, descriptor] : all_) {
    known += (known.empty() ? "; there are: " : ", ") + own;
    if (own != name) continue;
    if (!is_listening(descriptor))
      invalid("The socket '" + name + "' that was handed over does not listen for streams");
    const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) throw Error::system(errno, "Cannot use the socket '" + name + "'");
    sockets.emplace_back(copy);
  }
  if (sockets.empty()) invalid("No socket named '" + name + "' was handed over" + known);
  return sockets;
}

Task<std::vector<Socket>> InheritedSockets::listen(SocketAddress address) const {
  const bool by_name = address.kind == SocketAddress::Kind::kFd && !is_number(address.descriptor);
  std::vector<Socket> sockets;
  if (by_name)
    sockets = named(address.descriptor);
  else
    sockets = co_await listen_sockets(std::move(address));
  co_return sockets;
}

}  // namespace cairn::daemon
