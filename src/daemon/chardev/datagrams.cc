#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "async/runtime.h"
#include "base/error.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"
#include "platform/socket.h"

namespace cairn::daemon {
namespace {

// More does not fit in a datagram.
constexpr size_t kMostBytes = 65507;

// Datagrams from and to one peer. Each message of a monitor is one, or as few as it fits in.
class DatagramChannel : public Channel {
 public:
  explicit DatagramChannel(int fd) : fd_(fd) {}
  Task<std::string> read() override {
    std::string bytes(kMostBytes, '\0');
    while (!over_) {
      co_await await_ready(fd_, POLLIN);
      if (over_) break;
      const ssize_t got = ::recv(fd_, bytes.data(), bytes.size(), 0);
      // An empty datagram is no end, nor is a peer that is not there now.
      if (got <= 0) continue;
      bytes.resize(static_cast<size_t>(got));
      co_return bytes;
    }
    co_return std::string();
  }
  Task<bool> write(std::string text) override {
    for (size_t done = 0; done < text.size() && !aborted_;) {
      const size_t length = std::min(text.size() - done, kMostBytes);
      const ssize_t put = ::send(fd_, text.data() + done, length, MSG_NOSIGNAL);
      if (put < 0 && errno == EAGAIN)
        co_await await_ready(fd_, POLLOUT);
      else
        done += length;  // what nobody takes is lost
    }
    co_return !aborted_;
  }
  void stop_reading() override {
    over_ = true;
    wake_waits(fd_);
  }
  void abort() override {
    aborted_ = true;
    stop_reading();
  }

 private:
  int fd_;
  bool over_ = false;
  bool aborted_ = false;
};

// The first datagram makes the peer a client, who stays.
class UdpChardev : public Chardev {
 public:
  UdpChardev(std::string id, int fd) : Chardev(std::move(id)), socket_(fd) {}
  std::string filename() const override { return "udp"; }
  std::string_view type() const override { return "udp"; }
  void close() override {
    closed_ = true;
    wake_waits(socket_.fd());
  }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    if (taken_) co_return nullptr;
    while (!closed_) {
      const short events = co_await await_ready(socket_.fd(), POLLIN);
      if ((events & POLLIN) != 0) break;
      platform::connection_error(socket_.fd());  // takes it off
    }
    if (closed_) co_return nullptr;
    taken_ = true;
    co_return std::make_unique<DatagramChannel>(socket_.fd());
  }

 private:
  OpenFile socket_;
  bool taken_ = false;
  bool closed_ = false;
};

using Names = std::vector<platform::SocketName>;

Task<Names> names_of(SocketAddress address, bool local) {
  if (address.kind != SocketAddress::Kind::kInet) invalid("socket type unsupported for datagram");
  platform::InetQuery query{.host = address.host, .port = address.port, .passive = local};
  query.v4 = address.ipv4.value_or(!address.ipv6.value_or(false));
  query.v6 = address.ipv6.value_or(!address.ipv4.value_or(false));
  if (query.host.empty() && !local) query.host = "localhost";
  std::string why;
  Names names = co_await run_blocking([&] { return platform::resolve(query, &why); });
  if (names.empty())
    throw Error(ErrorKind::kIo, "address resolution failed for " + address.text() + ": " + why);
  co_return names;
}

const sockaddr* sockaddr_of(const platform::SocketName& name) {
  return reinterpret_cast<const sockaddr*>(name.bytes.data());
}

}  // namespace

Task<std::unique_ptr<Chardev>> make_udp_chardev(std::string id, Value data) {
  const SocketAddress remote = legacy_address(*data.find("remote"));
  const Names peers = co_await names_of(remote, false);
  const platform::SocketName& peer = peers.front();
  Names own;
  if (const Value* local = data.find("local")) {
    const SocketAddress address = legacy_address(*local);
    own = co_await names_of(address, true);
    std::erase_if(own, [&](const platform::SocketName& one) { return one.family != peer.family; });
    if (own.empty()) invalid("The local and the remote address are of different families");
  }
  const int fd =
      ::socket(sockaddr_of(peer)->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw Error::system(errno, "Failed to create socket");
  auto device = std::make_unique<UdpChardev>(std::move(id), fd);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!own.empty() && ::bind(fd, sockaddr_of(own.front()), own.front().length) != 0)
    throw Error::system(errno, "Failed to bind socket");
  if (::connect(fd, sockaddr_of(peer), peer.length) != 0)
    throw Error::system(errno, "Failed to connect to '" + remote.text() + "'");
  co_return device;
}

}  // namespace cairn::daemon
