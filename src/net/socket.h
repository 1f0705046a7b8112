#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "async/cancel.h"
#include "async/task.h"
#include "net/address.h"

namespace cairn {

using Deadline = std::chrono::steady_clock::time_point;
inline constexpr Deadline kNoDeadline = Deadline::max();

// An open, non-blocking stream socket; closed when it goes.
class Socket {
 public:
  Socket() = default;
  // Takes FD over and makes it non-blocking.
  explicit Socket(int fd);
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

  // The peer (or, for a listening socket, its own name) for messages.
  std::string peer_text() const;
  // Where a listening socket listens: with the port that the system chose.
  SocketAddress local_address() const;

 private:
  int fd_ = -1;
};

// Connects, trying every address that the host's name has. Throws what the last attempt said, as
// "Failed to connect to 'ADDRESS': …", kIo with ETIMEDOUT when DEADLINE passes, and kCancelled soon
// after CANCEL, unless it is null, asked for it; the answer of a name server is waited for.
Task<Socket> connect_socket(SocketAddress address, Deadline deadline = kNoDeadline,
                            const CancelSource* cancel = nullptr);

// Listens at ADDRESS: one socket for every address that the name has. The path of a Unix socket is
// replaced when a socket is there; BACKLOG as of listen(). Throws.
Task<std::vector<Socket>> listen_sockets(SocketAddress address, int backlog = 128);

// A connection that is waiting; a Socket that is false when there is none, or no descriptor left.
Socket try_accept(const Socket& listener);
// The next connection; a Socket that is false when the listening socket was shut down with
// ::shutdown(), which may happen on any thread. Errors of single connections are passed over.
Task<Socket> accept_socket(const Socket& listener);

}  // namespace cairn
