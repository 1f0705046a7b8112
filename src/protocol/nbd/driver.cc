#include "block/driver.h"

#include <fmt/core.h>

#include <cstdlib>

#include "block/context.h"
#include "block/fixed_storage.h"
#include "block/object_types.h"
#include "block/open.h"
#include "net/nbd_uri.h"
#include "platform/file.h"
#include "protocol/driver_options.h"
#include "protocol/nbd/node.h"
#include "protocol/server_driver.h"

namespace cairn {
namespace {

using namespace nbd;
using namespace nbd::client;

const OptionSchema kOpenOptions = {
    {"server.type", OptionType::kString, "",
     "inet, unix, vsock or fd, with the members of that kind"},
    {"host", OptionType::kString, "", "host of the server"},
    {"port", OptionType::kString, "10809", "its port"},
    {"path", OptionType::kString, "", "Unix socket of the server"},
    {"export", OptionType::kString, "", "name of the export"},
    {"tls-creds", OptionType::kString, "", "ID of the TLS credentials"},
    {"tls-hostname", OptionType::kString, "", "the name that the server's certificate must have"},
    {"x-dirty-bitmap", OptionType::kString, "", "a metadata context instead of base:allocation"},
    {"reconnect-delay", OptionType::kNumber, "0", "seconds that requests wait for a lost server"},
    {"open-timeout", OptionType::kNumber, "0", "seconds that opening waits for the server"},
};

// Where a user keeps certificates when the URI does not say.
std::string default_certificates(const std::string& home) {
  std::vector<std::string> places;
  if (!home.empty()) {
    places.push_back(home + "/.pki/libnbd");
    places.push_back(home + "/.config/pki/libnbd");
  }
  places.push_back("/etc/pki/libnbd");
  for (const std::string& place : places) {
    if (platform::exists(place + "/ca-cert.pem")) return place;
  }
  throw Error(ErrorKind::kInvalid, "TLS needs certificates")
      .hint(
          "Say where they are: nbds://HOST/EXPORT?tls-certificates=DIRECTORY, or give tls-creds.");
}

// Credentials that an nbds URI describes.
std::shared_ptr<const TlsCredentials> credentials_of(const Location& location,
                                                     const std::string& home) {
  Options properties;
  properties.set("endpoint", "client");
  std::string type = location.tls_type;
  if (type.empty()) type = location.tls_psk_file.empty() ? "x509" : "psk";
  if (type == "psk") {
    const std::string& file = location.tls_psk_file;
    if (file.empty()) invalid("TLS with a key needs tls-psk-file=FILE in the URL");
    // The object wants a directory with keys.psk: what libnbd calls the file.
    const size_t slash = file.rfind('/');
    if (file.substr(slash == std::string::npos ? 0 : slash + 1) != "keys.psk")
      invalid("The file of tls-psk-file must be named keys.psk");
    properties.set("dir", slash == std::string::npos ? "." : file.substr(0, slash + 1));
    if (!location.user.empty()) properties.set("username", location.user);
  } else if (type == "x509") {
    properties.set("dir", location.tls_certificates.empty() ? default_certificates(home)
                                                            : location.tls_certificates);
    if (location.tls_verify_peer) properties.set("verify-peer", *location.tls_verify_peer);
  }
  return TlsCredentials::load("tls-creds-" + type, properties);
}

// The name under which people know the export; QEMU's, without escapes.
std::string canonical_name(const SocketAddress& server, const std::string& name, bool tls,
                           MemberOrder order) {
  const std::string scheme = tls ? "nbds" : "nbd";
  const bool plain = !server.ipv4 && !server.ipv6 && !server.to;
  if (server.kind == SocketAddress::Kind::kInet && plain)
    return fmt::format("{}://{}{}", scheme, server.text(), (name.empty() ? "" : "/" + name));
  if (server.kind == SocketAddress::Kind::kUnix && !server.abstract)
    return fmt::format("{}+unix://{}?socket={}", scheme, (name.empty() ? "" : "/" + name),
                       server.path);
  Value tree = Value::object();
  tree.set("driver", "nbd");
  if (!name.empty()) tree.set("export", name);
  tree.set("server", server.to_value());
  return "json:" + tree.compact(order);
}

struct Description {
  Target target;
  std::string name;
};

// Takes what leads to the export out of OPTIONS.
SocketAddress address_of(Options& options) {
  const auto host = options.string("host");
  const auto port = options.string("port");
  const auto path = options.string("path");
  const bool server = options.has_tree("server");
  if (path && host) invalid("path and host may not be used at the same time");
  if (port && !host) invalid("port may not be used without host");
  if (server && (host || path)) invalid("Cannot use 'server' and path/host/port at the same time");
  if (path) return SocketAddress::unix_path(*path);
  if (host) return SocketAddress::inet(*host, port.value_or(std::to_string(kPort)));
  if (!server) invalid("NBD server address missing");
  const SocketAddress address = SocketAddress::from_options(options.take_tree("server"));
  return address;
}

Description describe(Context& context, Options& options, bool from_image) {
  Description result;
  Target& target = result.target;
  Location location;
  if (const auto uri = options.string("filename")) {
    location = parse_location(*uri);
    const bool names_files = !location.tls_certificates.empty() || !location.tls_psk_file.empty();
    if (from_image && names_files)
      throw Error(ErrorKind::kDenied, "an URL inside of an image may not name local files");
  } else {
    location.server = address_of(options);
    location.export_name = options.string("export").value_or("");
  }
  target.address = location.server;
  target.wish.export_name = location.export_name;
  if (target.wish.export_name.size() > kMaxString)
    invalid("export name too long to send to server");
  if (const auto id = options.string("tls-creds"))
    target.wish.tls = find_tls_credentials(context, *id, TlsCredentials::Endpoint::kClient);
  else if (location.tls)
    target.wish.tls = credentials_of(location, context.home_directory);
  target.wish.tls_hostname = options.string("tls-hostname").value_or(location.tls_hostname);
  if (target.wish.tls_hostname.empty() && location.server.kind == SocketAddress::Kind::kInet)
    target.wish.tls_hostname = location.server.host;
  if (const auto bitmap = options.string("x-dirty-bitmap")) {
    if (bitmap->size() > kMaxString || bitmap->empty())
      invalid("x-dirty-bitmap query too long to send to server");
    target.wish.context = *bitmap;
    target.wish.context_required = true;
  }
  const auto seconds = [&](const char* key) {
    return std::chrono::seconds(
        std::min<uint64_t>(options.number(key).value_or(0), uint64_t{1} << 30));
  };
  target.reconnect_delay = seconds("reconnect-delay");
  target.open_timeout = seconds("open-timeout");
  target.cancel = context.cancel;
  result.name = canonical_name(target.address, target.wish.export_name, location.tls,
                               context.profile.json_order);
  return result;
}

class NbdDriver : public ServerDriver {
 public:
  NbdDriver()
      : ServerDriver({.name = "nbd",
                      .title = "disks that an NBD server exports",
                      .prefixes = {"nbd", "nbd+tcp", "nbd+unix", "nbd+vsock", "nbds", "nbds+tcp",
                                   "nbds+unix", "nbds+vsock"},
                      .abilities = {.create = true},
                      .capabilities = NbdNode::Capabilities::ids(),
                      .fixed_size = true,
                      .open_options = kOpenOptions},
                     {"host", "port", "path", "export"}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    Description description =
        describe(request.context, request.options, request.ancestors != nullptr);
    description.target.server = request.server;
    auto node = std::make_shared<NbdNode>(request.context, *this, std::move(description.target),
                                          request.flags.writable, std::move(description.name));
    co_await connect(*node);
    co_return node;
  }

  // An export cannot be made: it must be there and large enough.
  Task<void> create(Context& context, CreateRequest request) const override {
    Options options;
    options.set("filename", request.filename);
    Description description = describe(context, options, false);
    auto node = std::make_shared<NbdNode>(context, *this, std::move(description.target), true,
                                          std::move(description.name));
    try {
      co_await connect(*node);
    } catch (Error& error) {
      throw error.context(
          "Protocol driver 'nbd' does not support creating new images, so an existing image must "
          "be selected as the target; however, opening the given target as an existing image "
          "failed");
    }
    const uint64_t length = node->length();
    co_await node->close();
    if (length < request.size)
      throw too_small(context, ErrorKind::kUnsupported, "Cannot grow NBD nodes", length,
                      request.size);
  }

 protected:
  Options parse_name(std::string_view filename) const override {
    parse_location(filename);
    Options options;
    options.set("filename", std::string(filename));
    return options;
  }

 private:
  static Task<void> connect(NbdNode& node) {
    try {
      co_await connect_or_close(node);
    } catch (Error& cause) {
      if (!node.context().profile.explanations || !cause.message().starts_with("No hostname"))
        throw;
      throw cause.hint("Name it with the option tls-hostname.");
    }
  }
};

}  // namespace

std::unique_ptr<Driver> make_nbd_driver() { return std::make_unique<NbdDriver>(); }

}  // namespace cairn
