#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "async/runtime.h"
#include "base/error.h"
#include "block/object_types.h"
#include "daemon/chardev/telnet.h"
#include "daemon/chardev/types.h"
#include "daemon/chardev/websocket.h"
#include "daemon/commands/commands.h"
#include "net/authz.h"
#include "net/tls.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether clients are taken again.
constexpr auto kHeldNap = 10ms;
// Who has not shown within this time that it speaks the language is let go: others wait for it.
constexpr auto kHandshakeTime = 10s;
constexpr auto kConnectTime = 1s;

struct SocketOptions {
  SocketAddress address;
  bool server = true;
  bool wait = true;
  bool websocket = false;
  std::optional<Telnet> telnet;
  std::shared_ptr<const TlsCredentials> tls;
  bool authorize = false;
  std::shared_ptr<const Authorization> authorization;
  std::optional<std::chrono::milliseconds> reconnect;
};

// Where a connection comes from; the device knows by it that it is there yet.
struct Presence {
  std::string text;
};

class PresentChannel : public FilterChannel {
 public:
  PresentChannel(std::unique_ptr<Channel> below, std::shared_ptr<Presence> presence)
      : FilterChannel(std::move(below)), presence_(std::move(presence)) {}

 private:
  std::shared_ptr<Presence> presence_;
};

// Clients that connect, one after the other, or the server that this program connects to.
class SocketChardev : public Chardev {
 public:
  SocketChardev(std::string id, SocketOptions options, std::vector<Socket> listeners,
                Socket connected, Context& context, ListeningSockets& sockets)
      : Chardev(std::move(id)),
        options_(std::move(options)),
        listeners_(std::move(listeners)),
        client_(std::move(connected)),
        context_(context),
        sockets_(sockets) {
    if (!listeners_.empty() && options_.address.kind == SocketAddress::Kind::kInet)
      options_.address.port = listeners_.front().local_address().port;
  }
  ~SocketChardev() override { close(); }

  std::string filename() const override;
  std::string_view type() const override { return "socket"; }
  Task<void> start(CancelSource& cancel) override;
  void close() override;
  void hold(bool on) override { held_ = on; }
  // Of its sockets.
  static std::string owner(const std::string& id) { return "chardev " + id; }

 protected:
  Task<std::unique_ptr<Channel>> accept() override;

 private:
  static Deadline soon() { return std::chrono::steady_clock::now() + 100ms; }
  Task<void> take_connection();
  Task<void> connect();
  Task<std::unique_ptr<Channel>> channel_of(Socket socket);
  Task<std::unique_ptr<Channel>> shake_hands(std::unique_ptr<Stream> stream);

  SocketOptions options_;
  std::vector<Socket> listeners_;
  Socket client_;  // that has come and waits to be asked for
  Context& context_;
  ListeningSockets& sockets_;  // which have the listeners as well
  std::weak_ptr<Presence> presence_;
  Stream* opening_ = nullptr;  // whose peer is not a client yet
  bool connected_before_ = false;
  bool warned_ = false;  // that it cannot connect, since it last could
  bool closed_ = false;
  bool held_ = false;
};

std::string SocketChardev::filename() const {
  const bool inet = options_.address.kind == SocketAddress::Kind::kInet;
  std::string scheme = "tcp:";
  if (options_.address.kind == SocketAddress::Kind::kUnix)
    scheme = "unix:";
  else if (options_.address.kind == SocketAddress::Kind::kFd)
    scheme = "fd:";
  else if (options_.telnet == Telnet::kTerminal)
    scheme = "telnet:";
  else if (options_.websocket)
    scheme = "websocket:";
  const std::string server = options_.server ? ",server=on" : "";
  const auto presence = presence_.lock();
  if (!presence && !client_) return "disconnected:" + scheme + options_.address.text() + server;
  if (!inet || !presence) return scheme + options_.address.text() + server;
  const size_t comma = presence->text.find(' ');
  return scheme + presence->text.substr(0, comma) + server + presence->text.substr(comma);
}

Task<void> SocketChardev::start(CancelSource& cancel) {
  while (options_.wait && !client_ && !listeners_.empty() && !cancel.requested()) {
    client_ = try_accept(listeners_.front());
    if (!client_) co_await await_ready(listeners_.front().fd(), POLLIN, soon());
  }
}

void SocketChardev::close() {
  if (std::exchange(closed_, true)) return;
  for (const Socket& listener : listeners_) wake_waits(listener.fd());
  if (opening_ != nullptr) opening_->abort();
  if (options_.server) sockets_.end(owner(id()));
}

// A client that connects; none, when clients are held or it cannot be taken now.
Task<void> SocketChardev::take_connection() {
  co_await await_ready(listeners_.front().fd(), POLLIN);
  if (closed_) co_return;
  if (held_) {
    co_await sleep_for(kHeldNap);
    co_return;
  }
  client_ = try_accept(listeners_.front());
  // Out of descriptors: one must be given back first.
  if (!client_ && errno != EAGAIN) co_await sleep_for(50ms);
}

// One attempt to connect, after the pause that comes before it. It is short, because close() waits
// for its end.
Task<void> SocketChardev::connect() {
  const auto until = std::chrono::steady_clock::now() + *options_.reconnect;
  while (connected_before_ && !closed_ && std::chrono::steady_clock::now() < until)
    co_await sleep_for(
        std::min<std::chrono::nanoseconds>(100ms, until - std::chrono::steady_clock::now() + 1ms));
  if (closed_) co_return;
  connected_before_ = true;
  try {
    const SocketAddress address = options_.address;
    client_ = co_await connect_socket(address, std::chrono::steady_clock::now() + kConnectTime);
    warned_ = false;
  } catch (const Error& error) {
    if (!std::exchange(warned_, true))
      context_.warn("Unable to connect character device " + id() + ": " + error.message());
  }
}

Task<std::unique_ptr<Channel>> SocketChardev::accept() {
  while (!closed_) {
    if (!client_ && !listeners_.empty()) {
      co_await take_connection();
    } else if (!client_ && options_.reconnect) {
      co_await connect();
    } else if (!client_) {
      break;
    }
    if (closed_ || !client_) continue;
    std::unique_ptr<Channel> channel = co_await channel_of(std::exchange(client_, Socket()));
    if (channel) co_return channel;
  }
  co_return nullptr;
}

Task<std::unique_ptr<Channel>> SocketChardev::channel_of(Socket socket) {
  auto presence = std::make_shared<Presence>();
  if (options_.address.kind == SocketAddress::Kind::kInet)
    presence->text = socket.local_address().text() + " <-> " + socket.peer_text();
  auto stream = std::make_unique<Stream>(std::move(socket));
  std::unique_ptr<Channel> channel;
  try {
    channel = co_await shake_hands(std::move(stream));
  } catch (const Error& error) {
    context_.warn("chardev '" + id() + "': " + error.message());
  }
  opening_ = nullptr;
  if (!channel || closed_) co_return nullptr;
  presence_ = presence;
  co_return std::make_unique<PresentChannel>(std::move(channel), std::move(presence));
}

// Null: the peer has got its answer and is let go.
Task<std::unique_ptr<Channel>> SocketChardev::shake_hands(std::unique_ptr<Stream> stream) {
  Stream& connection = *stream;
  opening_ = stream.get();
  connection.set_deadline(std::chrono::steady_clock::now() + kHandshakeTime);
  if (options_.tls) {
    std::unique_ptr<TlsSession> session =
        options_.tls->session(options_.server ? std::string() : options_.address.host);
    co_await connection.start_tls(std::move(session));
    const std::string peer = connection.tls()->peer_name();
    if (options_.authorize && (!options_.authorization || !options_.authorization->allows(peer)))
      throw Error(ErrorKind::kDenied, "TLS x509 authz check for " + peer + " is denied");
  }
  std::unique_ptr<Channel> channel = std::make_unique<SocketChannel>(std::move(stream));
  if (options_.websocket) channel = co_await accept_websocket(std::move(channel));
  if (channel && options_.telnet) {
    bool sent = true;
    if (options_.server)
      sent = co_await channel->write(std::string(telnet_greeting(*options_.telnet)));
    if (sent)
      channel = std::make_unique<TelnetChannel>(std::move(channel), *options_.telnet);
    else
      channel = nullptr;
  }
  if (channel) connection.set_deadline(kNoDeadline);
  co_return channel;
}

// What DATA says besides the address, checked as QEMU checks it.
SocketOptions options_of(const Value& data, const Context& context) {
  SocketOptions options;
  options.address = legacy_address(*data.find("addr"));
  options.server = flag_of(data, "server", true);
  options.wait = flag_of(data, "wait", true);
  options.websocket = flag_of(data, "websocket", false);
  if (flag_of(data, "telnet", false)) options.telnet = Telnet::kTerminal;
  if (flag_of(data, "tn3270", false)) options.telnet = Telnet::kTn3270;
  const bool seconds = data.find("reconnect") != nullptr;
  const bool milliseconds = data.find("reconnect-ms") != nullptr;
  if (seconds && milliseconds) invalid("'reconnect' and 'reconnect-ms' are mutually exclusive");
  const int64_t pause =
      seconds ? number_of(data, "reconnect", 0) : number_of(data, "reconnect-ms", 0);
  constexpr int64_t kMostPause = INT32_MAX;
  if (pause < 0 || pause > kMostPause)
    invalid(std::string("'reconnect") + (seconds ? "" : "-ms") + "' must be between 0 and " +
            std::to_string(kMostPause));
  if (seconds && options.server)
    invalid("'reconnect' option is incompatible with socket in server listen mode");
  if (pause != 0 && !options.server)
    options.reconnect = std::chrono::milliseconds(seconds ? pause * 1000 : pause);
  if (!options.server && options.websocket) invalid("Websocket client is not implemented");
  if (!options.server && data.find("wait") != nullptr)
    invalid("'wait' option is incompatible with socket in client connect mode");
  const std::string creds = text_of(data, "tls-creds");
  const std::string authz = text_of(data, "tls-authz");
  if (creds.empty() && !authz.empty()) invalid("'tls_authz' option requires 'tls_creds' option");
  if (!creds.empty())
    options.tls = find_tls_credentials(
        context, creds,
        options.server ? TlsCredentials::Endpoint::kServer : TlsCredentials::Endpoint::kClient);
  options.authorize = !authz.empty();
  options.authorization = find_authorization(context, authz);
  return options;
}

}  // namespace

SocketAddress legacy_address(const Value& address) {
  Value flat = Value::object();
  flat.set("type", *address.find("type"));
  for (const auto& [name, value] : *address.find("data")->get_if<Value::Object>())
    flat.set(name, value);
  return SocketAddress::from_options(Options::from_value(flat));
}

Task<std::unique_ptr<Chardev>> make_socket_chardev(std::string id, Value data, Context& context,
                                                   ListeningSockets& sockets) {
  SocketOptions options = options_of(data, context);
  const SocketAddress address = options.address;
  std::vector<Socket> listeners;
  Socket connected;
  if (options.server) {
    const std::string owner = SocketChardev::owner(id);
    listeners = co_await sockets.listen(address, owner);
  } else if (!options.reconnect) {
    const std::string& fd = address.descriptor;
    if (fd.find_first_not_of("0123456789") != std::string::npos)
      invalid("Unable to parse FD number " + fd);
    connected = co_await connect_socket(address);
  }
  co_return std::make_unique<SocketChardev>(std::move(id), std::move(options), std::move(listeners),
                                            std::move(connected), context, sockets);
}

}  // namespace cairn::daemon
