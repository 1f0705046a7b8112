#include "daemon/chardev_types.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether clients are taken again.
constexpr auto kHeldNap = 10ms;
constexpr uint64_t kRingbufBytes = 65536;
constexpr uint64_t kMostRingbufBytes = uint64_t{64} << 20;

bool flag(const Value& data, std::string_view name, bool otherwise) {
  const Value* value = data.find(name);
  const bool* given = value == nullptr ? nullptr : value->get_if<bool>();
  return given == nullptr ? otherwise : *given;
}

std::string text(const Value& data, std::string_view name) {
  const Value* value = data.find(name);
  const auto* given = value == nullptr ? nullptr : value->get_if<std::string>();
  return given == nullptr ? std::string() : *given;
}

class NullChardev : public Chardev {
 public:
  explicit NullChardev(std::string id) : Chardev(std::move(id)) {}
  std::string filename() const override { return "null"; }
  std::string_view type() const override { return "null"; }
};

// One client: who has the program's terminal.
class StdioChardev : public Chardev {
 public:
  StdioChardev(std::string id, int input, int output)
      : Chardev(std::move(id)), input_(input), output_(output) {}
  std::string filename() const override { return "stdio"; }
  std::string_view type() const override { return "stdio"; }
  Task<std::unique_ptr<Channel>> next_client() override {
    if (std::exchange(taken_, true)) co_return nullptr;
    co_return std::make_unique<Channel>(input_, output_);
  }

 private:
  int input_, output_;
  bool taken_ = false;
};

class FileChardev : public Chardev {
 public:
  FileChardev(std::string id, int fd) : Chardev(std::move(id)), fd_(fd) {}
  ~FileChardev() override { ::close(fd_); }
  std::string filename() const override { return "file"; }
  std::string_view type() const override { return "file"; }

 private:
  int fd_;
};

// Clients that connect, one after the other, or the server that this program connected to.
class SocketChardev : public Chardev {
 public:
  SocketChardev(std::string id, SocketAddress address, std::vector<Socket> listeners, bool wait,
                ListeningSockets& sockets)
      : Chardev(std::move(id)),
        address_(std::move(address)),
        listeners_(std::move(listeners)),
        sockets_(&sockets),
        wait_(wait) {
    if (!listeners_.empty() && address_.kind == SocketAddress::Kind::kInet)
      address_.port = listeners_.front().local_address().port;
  }
  SocketChardev(std::string id, SocketAddress address, Socket connected)
      : Chardev(std::move(id)), address_(std::move(address)), client_(std::move(connected)) {}
  ~SocketChardev() override { close(); }

  std::string filename() const override {
    const char* scheme = address_.kind == SocketAddress::Kind::kUnix ? "unix:"
                         : address_.kind == SocketAddress::Kind::kFd ? "fd:"
                                                                     : "tcp:";
    return scheme + address_.text() + (listeners_.empty() ? "" : ",server=on");
  }
  std::string_view type() const override { return "socket"; }

  Task<void> start(CancelSource& cancel) override {
    while (wait_ && !client_ && !cancel.requested()) {
      client_ = try_accept(listeners_.front());
      if (!client_) co_await await_ready(listeners_.front().fd(), POLLIN, soon());
    }
  }

  Task<std::unique_ptr<Channel>> next_client() override {
    while (!closed_ && !client_ && !listeners_.empty()) {
      const int listener = listeners_.front().fd();
      co_await await_ready(listener, POLLIN);
      if (closed_) break;
      if (held_) {
        co_await sleep_for(kHeldNap);
        continue;
      }
      client_ = try_accept(listeners_.front());
      // Out of descriptors: one must be given back first.
      if (!client_ && errno != EAGAIN) co_await sleep_for(50ms);
    }
    if (closed_ || !client_) co_return nullptr;
    co_return std::make_unique<Channel>(std::move(client_));
  }

  void close() override {
    if (std::exchange(closed_, true)) return;
    for (const Socket& listener : listeners_) wake_waits(listener.fd());
    if (sockets_ != nullptr) sockets_->end(owner(id()));
  }
  void hold(bool on) override { held_ = on; }
  // Of its sockets.
  static std::string owner(const std::string& id) { return "chardev " + id; }

 private:
  static std::chrono::steady_clock::time_point soon() {
    return std::chrono::steady_clock::now() + 100ms;
  }
  SocketAddress address_;
  std::vector<Socket> listeners_;
  ListeningSockets* sockets_ = nullptr;  // which have the listeners as well
  bool wait_ = false;
  Socket client_;  // that has come and waits to be asked for
  bool closed_ = false;
  bool held_ = false;
};

}  // namespace

std::unique_ptr<Chardev> make_null_chardev(std::string id) {
  return std::make_unique<NullChardev>(std::move(id));
}

std::unique_ptr<Chardev> make_stdio_chardev(std::string id, int input, int output) {
  return std::make_unique<StdioChardev>(std::move(id), input, output);
}

std::unique_ptr<Chardev> make_ringbuf_chardev(std::string id, const Value& data) {
  const Value* size = data.find("size");
  const auto bytes =
      size == nullptr ? kRingbufBytes : static_cast<uint64_t>(*size->get_if<int64_t>());
  if (bytes == 0 || (bytes & (bytes - 1)) != 0)
    invalid("size of ringbuf chardev must be power of two");
  if (bytes > kMostRingbufBytes)
    invalid("size of ringbuf chardev must be at most " + std::to_string(kMostRingbufBytes));
  return std::make_unique<Ringbuf>(std::move(id), bytes);
}

std::unique_ptr<Chardev> make_file_chardev(std::string id, const Value& data) {
  const std::string path = text(data, "out");
  const int flags =
      O_WRONLY | O_CREAT | O_CLOEXEC | (flag(data, "append", false) ? O_APPEND : O_TRUNC);
  const int fd = ::open(path.c_str(), flags, 0666);
  if (fd < 0) throw Error::system(errno, "Could not open '" + path + "'");
  return std::make_unique<FileChardev>(std::move(id), fd);
}

void Ringbuf::write(std::string_view bytes) {
  held_.append(bytes.substr(bytes.size() - std::min(bytes.size(), most_)));
  if (held_.size() > most_) held_.erase(0, held_.size() - most_);
}

std::string Ringbuf::take(size_t most) {
  std::string taken = held_.substr(0, most);
  held_.erase(0, taken.size());
  return taken;
}

SocketAddress legacy_address(const Value& address) {
  Value flat = Value::object();
  flat.set("type", *address.find("type"));
  for (const auto& [name, value] : *address.find("data")->get_if<Value::Object>())
    flat.set(name, value);
  return SocketAddress::from_options(Options::from_value(flat));
}

Task<std::unique_ptr<Chardev>> make_socket_chardev(std::string id, Value data,
                                                   ListeningSockets& sockets) {
  const SocketAddress address = legacy_address(*data.find("addr"));
  for (const std::string_view unknown : {"tls-creds", "tls-authz", "telnet", "tn3270", "websocket"})
    if (const Value* value = data.find(unknown);
        value != nullptr && !value->scalar_text().empty() && value->scalar_text() != "false")
      throw Error(ErrorKind::kUnsupported,
                  "'" + std::string(unknown) + "' is not available for a socket chardev");
  const bool server = flag(data, "server", true);
  if (!server) {
    if (data.find("wait") != nullptr)
      invalid("'wait' option is incompatible with socket in client connect mode");
    Socket connected = co_await connect_socket(address);
    co_return std::make_unique<SocketChardev>(std::move(id), address, std::move(connected));
  }
  std::vector<Socket> listeners = co_await sockets.listen(address, SocketChardev::owner(id));
  co_return std::make_unique<SocketChardev>(std::move(id), address, std::move(listeners),
                                            flag(data, "wait", true), sockets);
}

}  // namespace cairn::daemon
