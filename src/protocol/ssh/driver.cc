#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/arith.h"
#include "base/value.h"
#include "block/context.h"
#include "block/open.h"
#include "block/takes_back.h"
#include "protocol/driver_options.h"
#include "protocol/server_driver.h"
#include "protocol/ssh/location.h"
#include "protocol/ssh/node.h"

namespace cairn {
namespace {

using namespace ssh;

const OptionSchema kOpenOptions = {
    {"server.host", OptionType::kString, "", "name or address of the server"},
    {"server.port", OptionType::kString, "", "its port"},
    {"host", OptionType::kString, "", "the same as server.host"},
    {"port", OptionType::kString, "22", "the same as server.port"},
    {"path", OptionType::kString, "", "file on the server, from its root on"},
    {"user", OptionType::kString, "", "who logs in"},
    {"host_key_check", OptionType::kString, "yes",
     "yes (known_hosts), no, or the hash of the server's key (md5:…, sha1:…, sha256:…)"},
    {"host-key-check.mode", OptionType::kString, "known_hosts", "known_hosts, hash or none"},
    {"host-key-check.type", OptionType::kString, "", "of a hash: md5, sha1 or sha256"},
    {"host-key-check.hash", OptionType::kString, "", "the hash, in hexadecimal digits"},
    {"known-hosts-file", OptionType::kString, "", "instead of ~/.ssh/known_hosts", true},
    {"password-secret", OptionType::kString, "", "ID of a secret that holds the password", true},
    {"key-file", OptionType::kString, "", "private key to log in with", true},
    {"key-secret", OptionType::kString, "", "ID of a secret that holds its passphrase", true},
    {"timeout", OptionType::kNumber, "30", "seconds without an answer", true},
    {"sessions", OptionType::kNumber, "2", "how many sessions are opened at most", true},
    {"retries", OptionType::kNumber, "3", "how often a lost connection is opened again", true},
};

HostKeyCheck check_of(Options& options) {
  if (const auto text = options.string("host_key_check")) return HostKeyCheck::parse(*text);
  HostKeyCheck check;
  if (!options.has_tree("host-key-check")) return check;
  const Options tree = options.take_tree("host-key-check");
  const auto mode = tree.string("mode");
  if (!mode) invalid("Parameter 'host-key-check.mode' is missing");
  if (*mode == "known_hosts") return check;
  if (*mode == "none") {
    check.mode = HostKeyCheck::Mode::kNone;
    return check;
  }
  if (*mode != "hash") invalid("Parameter 'mode' does not accept value '" + *mode + "'");
  const auto type = tree.string("type");
  if (!type) invalid("Parameter 'host-key-check.type' is missing");
  const auto hash = tree.string("hash");
  if (!hash) invalid("Parameter 'host-key-check.hash' is missing");
  return HostKeyCheck::of_hash(*type, *hash);
}

std::string local_user() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_name : "";
}

struct Description {
  Target target;
  std::string name;  // as it is shown
};

void check_port(const std::string& port, const char* otherwise) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size()) invalid(otherwise);
}

SocketAddress server_of(Options& options, bool* default_port) {
  const auto host = options.string("host");
  const auto port = options.string("port");
  if (port && !host) invalid("port may not be used without host");
  if (port) check_port(*port, "Parameter 'port' expects a number");
  if (host) {
    *default_port = !port;
    return SocketAddress::inet(*host, port.value_or("22"));
  }
  if (!options.has_tree("server")) invalid("Parameter 'server' is missing");
  Options server = options.take_tree("server");
  if (!server.has("type")) server.set("type", "inet");
  for (const char* part : {"host", "port"})
    if (!server.has(part)) invalid("Parameter 'server." + std::string(part) + "' is missing");
  *default_port = false;
  const SocketAddress address = SocketAddress::from_options(server);
  if (address.kind == SocketAddress::Kind::kInet)
    check_port(address.port, "Use only numeric port value");
  return address;
}

Description describe(Context& context, Options& options) {
  Description result;
  Target& target = result.target;
  const auto path = options.string("path");
  if (!path) invalid("Parameter 'path' is missing");
  target.path = *path;
  target.server = server_of(options, &target.default_port);
  target.user = options.string("user").value_or("");
  target.host_key = check_of(options);
  target.known_hosts_file = options.string("known-hosts-file").value_or("");
  target.password = secret_option(context, options, "password-secret");
  target.key_file = options.string("key-file").value_or("");
  target.key_passphrase = secret_option(context, options, "key-secret");
  target.timeout = std::chrono::seconds(bounded_option(options, "timeout", 1, 100'000, 30));
  target.sessions = bounded_option(options, "sessions", 1, 32, target.sessions);
  target.retries = bounded_option(options, "retries", 0, 1000, target.retries);
  target.explains = context.profile.explanations;
  const SocketAddress& server = target.server;
  if (server.ipv4 || server.ipv6 || server.to || server.kind != SocketAddress::Kind::kInet) {
    Value tree = Value::object();
    tree.set("driver", "ssh");
    tree.set("path", target.path);
    if (!target.user.empty()) tree.set("user", target.user);
    if (!target.host_key.text.empty()) tree.set("host_key_check", target.host_key.text);
    tree.set("server", server.to_value());
    result.name = "json:" + tree.compact(context.profile.json_order);
  } else {
    std::string check = target.host_key.text;
    if (check.empty() && target.host_key.mode == HostKeyCheck::Mode::kNone &&
        context.profile.explanations)
      check = "no";
    result.name = make_uri(target.user.empty() ? local_user() : target.user, server.host,
                           server.port, target.path, check);
  }
  return result;
}

class SshDriver : public ServerDriver, public TakesBack {
 public:
  SshDriver()
      : ServerDriver({.name = "ssh",
                      .title = "files of an SSH server, by SFTP",
                      .prefixes = {"ssh"},
                      .abilities = {.create = true, .resize = true},
                      .capabilities = SshNode::Capabilities::ids(),
                      .open_options = kOpenOptions,
                      .create_options = size_option()},
                     {"host", "port", "path", "user", "host_key_check"}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    tell_left_out(request.context, request.options);
    Description description = describe(request.context, request.options);
    co_return co_await connected(
        std::make_shared<SshNode>(request.context, *this, std::move(description.target),
                                  request.flags.writable, std::move(description.name)));
  }

  bool makes_only_new() const override { return false; }

  Task<void> take_back(Context& context, std::string filename, Options) const override {
    Options options = named(filename);
    options.erase(kLeftOut);
    const Description description = describe(context, options);
    Session session(description.target, true, false, nullptr);
    co_await remove_remote_file(session);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    Options options = place_of(request);
    tell_left_out(context, options);
    Description description = describe(context, options);
    Session session(description.target, true, true, context.cancel);
    co_await make_remote_file(session, align_up(request.size, 512));
  }

 protected:
  Options parse_name(std::string_view filename) const override {
    std::string left_out;
    Options options = parse_uri(filename, [&](const std::string& line) {
      left_out += (left_out.empty() ? "" : "\n") + line;
    });
    if (!left_out.empty()) options.set(kLeftOut, left_out);
    return options;
  }

 private:
  // What the parsing of a URI passed over, for the warning when it is used.
  static constexpr std::string_view kLeftOut = "uri-warnings";

  static void tell_left_out(Context& context, Options& options) {
    const std::string lines = options.string(kLeftOut).value_or("");
    options.erase(kLeftOut);
    for (size_t at = 0; at < lines.size();) {
      const size_t end = std::min(lines.find('\n', at), lines.size());
      context.warn(lines.substr(at, end - at));
      at = end + 1;
    }
  }
};

}  // namespace

std::unique_ptr<Driver> make_ssh_driver() { return std::make_unique<SshDriver>(); }

}  // namespace cairn
