#include <fmt/core.h>

#include <algorithm>

#include "base/value.h"
#include "block/context.h"
#include "block/open.h"
#include "protocol/driver_options.h"
#include "protocol/web/remote_node.h"

namespace cairn {
namespace {

using namespace web;

const OptionSchema kOpenOptions = {
    {"url", OptionType::kString, "", "where the file is"},
    {"readahead", OptionType::kSize, "256k", "bytes that are first fetched beyond a read"},
    {"sslverify", OptionType::kBool, "on", "whether the server's certificate must be valid"},
    {"timeout", OptionType::kNumber, "30", "seconds without a connection or a byte"},
    {"cookie", OptionType::kString, "", "cookies to send (NAME=VALUE; …)"},
    {"cookie-secret", OptionType::kString, "", "ID of a secret that holds them"},
    {"username", OptionType::kString, "", "who asks"},
    {"password-secret", OptionType::kString, "", "ID of a secret that holds the password"},
    {"proxy-username", OptionType::kString, "", "the same for a proxy"},
    {"proxy-password-secret", OptionType::kString, "", "ID of a secret with the proxy's password"},
    {"connections", OptionType::kNumber, "4",
     "how many connections are used at most (without it 8 when answers take long)", true},
    {"retries", OptionType::kNumber, "5", "how often a failed request is repeated", true},
    {"cookie-file", OptionType::kString, "", "file with cookies (Netscape's format)", true},
    {"header-secret", OptionType::kString, "", "ID of a secret that holds a line of the head",
     true},
    {"netrc", OptionType::kBool, "off", "look for the password in ~/.netrc", true},
    {"cafile", OptionType::kString, "", "file with the certificates that are trusted", true},
    {"capath", OptionType::kString, "", "directory with them", true},
    {"certificate", OptionType::kString, "", "file with the client's certificate", true},
    {"key", OptionType::kString, "", "file with the client's key", true},
};

// Options by which a name that is only a URL would not reach the same file.
constexpr std::string_view kShown[] = {
    "sslverify",       "cookie",         "cookie-secret",        "username",
    "password-secret", "proxy-username", "proxy-password-secret"};

Settings settings_of(Context& context, std::string_view scheme, const Options& options) {
  Settings settings;
  settings.scheme = scheme;
  const auto url = options.string("url");
  if (!url) invalid("curl block driver requires an 'url' option");
  const std::string start = std::string(scheme) + "://";
  if (!url->starts_with(start))
    invalid(fmt::format("{} curl driver cannot handle the URL '{}' (does not start with '{}')",
                        scheme, masked(*url), start));
  settings.location = parse_url(*url);
  settings.readahead = options.size("readahead").value_or(settings.readahead);
  if (settings.readahead % 512 != 0)
    invalid(fmt::format("HTTP_READAHEAD_SIZE {} is not a multiple of 512", settings.readahead));
  constexpr uint64_t kMostSeconds = 10'000;
  const uint64_t timeout = options.number("timeout").value_or(30);
  if (timeout > kMostSeconds) invalid("timeout parameter is too large or negative");
  settings.transport.timeout = std::chrono::seconds(timeout == 0 ? kMostSeconds : timeout);
  settings.transport.verify = options.boolean("sslverify").value_or(true);
  if (options.has("cookie") && options.has("cookie-secret"))
    invalid("curl driver cannot handle both cookie and cookie secret");
  settings.cookie =
      options.string("cookie").value_or(secret_option(context, options, "cookie-secret"));
  settings.user = options.string("username").value_or("");
  settings.password = secret_option(context, options, "password-secret");
  settings.transport.proxy_user = options.string("proxy-username").value_or("");
  settings.transport.proxy_password = secret_option(context, options, "proxy-password-secret");
  if (options.has("connections"))
    settings.transport.connections = settings.transport.distant_connections =
        bounded_option(options, "connections", 1, 64, settings.transport.connections);
  settings.transport.retries =
      bounded_option(options, "retries", 0, 1000, settings.transport.retries);
  settings.cookie_file = options.string("cookie-file").value_or("");
  settings.header = secret_option(context, options, "header-secret");
  while (!settings.header.empty() &&
         (settings.header.back() == '\n' || settings.header.back() == '\r'))
    settings.header.pop_back();
  if (settings.header.find_first_of("\r\n") != std::string::npos)
    invalid("The secret of 'header-secret' must be one line");
  settings.netrc = options.boolean("netrc").value_or(false);
  settings.transport.ca_file = options.string("cafile").value_or("");
  settings.transport.ca_directory = options.string("capath").value_or("");
  settings.certificate = options.string("certificate").value_or("");
  settings.key = options.string("key").value_or("");
  return settings;
}

// The name under which people know the disk; without passwords.
std::string shown_name(const Profile& profile, std::string_view scheme, const Options& options) {
  const std::string url = masked(options.string("url").value_or(""));
  Value tree = Value::object();
  tree.set("url", url);
  tree.set("driver", std::string(scheme));
  bool plain = true;
  for (const std::string_view key : kShown) {
    const auto value = options.string(key);
    if (!value) continue;
    plain = false;
    tree.set(std::string(key), *value);
  }
  return plain ? url : "json:" + tree.compact(profile.json_order);
}

class HttpDriver : public Driver {
 public:
  explicit HttpDriver(std::string_view scheme)
      : Driver({.name = scheme,
                .title = scheme.starts_with("http") ? "files of a web server, read only"
                                                    : "files of an FTP server, read only",
                .kind = DriverKind::kProtocol,
                .prefixes = {scheme},
                .abilities = {.read_only = true},
                .capabilities = RemoteNode::Capabilities::ids(),
                .verbatim = true,
                .fixed_size = true,
                .remote = true,
                .open_options = kOpenOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    options.set("url", std::string(filename));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    Settings settings = settings_of(request.context, name(), request.options);
    if (request.flags.writable)
      throw Error(ErrorKind::kDenied, "curl driver does not support writes");
    settings.server = request.server;
    auto node = std::make_shared<RemoteNode>(
        request, std::move(settings), shown_name(request.context.profile, name(), request.options));
    co_await connect_or_close(*node);
    co_return node;
  }
};

}  // namespace

std::unique_ptr<Driver> make_http_driver() { return std::make_unique<HttpDriver>("http"); }
std::unique_ptr<Driver> make_https_driver() { return std::make_unique<HttpDriver>("https"); }
std::unique_ptr<Driver> make_ftp_driver() { return std::make_unique<HttpDriver>("ftp"); }
std::unique_ptr<Driver> make_ftps_driver() { return std::make_unique<HttpDriver>("ftps"); }

}  // namespace cairn
