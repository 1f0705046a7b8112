#include "daemon/listening_sockets.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

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

Socket copy_of(int descriptor, const std::string& name) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw Error::system(errno, "Cannot use the socket '" + name + "'");
  return Socket(copy);
}

}  // namespace

void ListeningSockets::add(std::string name, int descriptor) {
  named_.emplace_back(std::move(name), descriptor);
}

std::vector<Socket> ListeningSockets::named(const std::string& name) const {
  std::vector<Socket> sockets;
  std::string known;
  for (const auto& [own, descriptor] : named_) {
    known += (known.empty() ? "; there are: " : ", ") + own;
    if (own != name) continue;
    if (!is_listening(descriptor))
      invalid("The socket '" + name + "' that was handed over does not listen for streams");
    sockets.push_back(copy_of(descriptor, name));
  }
  if (sockets.empty()) invalid("No socket named '" + name + "' was handed over" + known);
  return sockets;
}

void ListeningSockets::take_over(const std::string& owner, Socket socket) {
  waiting_[owner].push_back(std::move(socket));
}

Task<std::vector<Socket>> ListeningSockets::listen(SocketAddress address, std::string owner) {
  const bool by_name = address.kind == SocketAddress::Kind::kFd && !is_number(address.descriptor);
  Held held;
  if (address.kind == SocketAddress::Kind::kUnix && !address.abstract)
    held.path = std::filesystem::absolute(address.path);
  std::vector<Socket> sockets;
  if (const auto waiting = waiting_.find(owner); waiting != waiting_.end()) {
    sockets = std::move(waiting->second);
    waiting_.erase(waiting);
  } else if (by_name) {
    sockets = named(address.descriptor);
  } else {
    sockets = co_await listen_sockets(std::move(address));
  }
  for (const Socket& socket : sockets) held.copies.push_back(copy_of(socket.fd(), owner));
  owned_[owner] = std::move(held);
  co_return sockets;
}

void ListeningSockets::end(const std::string& owner) {
  const auto found = owned_.find(owner);
  if (found == owned_.end()) return;
  if (keeping_)
    waiting_[owner] = std::move(found->second.copies);
  else if (!found->second.path.empty())
    ::unlink(found->second.path.c_str());
  owned_.erase(found);
}

void ListeningSockets::keep(bool on) {
  keeping_ = on;
  if (!on) waiting_.clear();
}

std::vector<ListeningSockets::Open> ListeningSockets::all() const {
  std::vector<Open> open;
  for (const auto& [name, descriptor] : named_)
    open.push_back({.of_owner = false, .name = name, .descriptor = descriptor});
  for (const auto& [owner, held] : owned_)
    for (const Socket& copy : held.copies)
      open.push_back({.of_owner = true, .name = owner, .descriptor = copy.fd()});
  return open;
}

}  // namespace cairn::daemon
