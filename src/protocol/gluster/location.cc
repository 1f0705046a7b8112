#include "protocol/gluster/location.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/percent.h"
#include "protocol/uri_text.h"

namespace cairn::gluster {
namespace {

constexpr int kDaemonPort = 24007;

[[noreturn]] void refuse(std::string_view uri) {
  throw Error(ErrorKind::kInvalid, "invalid URI " + std::string(uri))
      .hint(
          "Usage: file=gluster[+transport]://[host[:port]]volume/path[?socket=...]"
          "[,file.debug=N][,file.logfile=/path/filename.log]");
}

std::string usage_of_options() {
  return "Usage: -drive driver=qcow2,file.driver=gluster,file.volume=testvol,"
         "file.path=/path/a.qcow2[,file.debug=9][,file.logfile=/path/filename.log],"
         "file.server.0.type=inet,file.server.0.host=1.2.3.4,file.server.0.port=24007,"
         "file.server.1.transport=unix,file.server.1.path=/var/run/glusterd.socket ...";
}

std::optional<int> port_of(std::string_view text) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// HOST[:PORT], where an address of IPv6 is in brackets; nothing when it makes no sense.
std::optional<Server> server_of(std::string_view authority) {
  std::string_view host = authority;
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return std::nullopt;
    if (!port.empty()) port.remove_prefix(1);
  } else {
    port = authority;
    host = cut(&port, ':');
  }
  const auto number = port.empty() ? kDaemonPort : port_of(port);
  if (!number) return std::nullopt;
  return Server{.host = host.empty() ? "localhost" : percent_decoded(host), .port = *number};
}

bool has_zero(const Location& location) {
  const auto zero = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  return zero(location.volume) || zero(location.path) ||
         std::any_of(location.servers.begin(), location.servers.end(),
                     [&](const Server& server) { return zero(server.host); });
}

[[noreturn]] void refuse_server(size_t index, const std::string& text) {
  throw Error(ErrorKind::kInvalid, text)
      .hint(fmt::format("hint: check in 'server' array index '{}'", index))
      .hint(usage_of_options());
}

Server server_of(const Options& options, size_t index) {
  const auto need = [&](const char* key) {
    const auto value = options.string(key);
    if (!value) refuse_server(index, "Parameter '" + std::string(key) + "' is missing");
    return *value;
  };
  const std::string type = need("type");
  if (type == "unix") {
    const auto path = options.string("path");
    const auto socket = options.string("socket");
    if (path && socket) refuse_server(index, "Conflicting parameters 'path' and 'socket'");
    return {.local = true, .host = socket ? *socket : need("path")};
  }
  if (type != "inet" && type != "tcp")
    refuse_server(index, "Parameter 'type' may be 'inet' or 'unix'");
  const std::string host = need("host");
  const std::string port = need("port");
  const auto number = port_of(port);
  if (!number) refuse_server(index, "'" + port + "' is not a valid port number");
  if (options.has("to"))
    throw Error(ErrorKind::kInvalid, "Parameter 'to' not supported").hint(usage_of_options());
  if (options.has("ipv4") || options.has("ipv6"))
    throw Error(ErrorKind::kInvalid, "Parameters 'ipv4/ipv6' not supported")
        .hint(usage_of_options());
  return {.host = host, .port = *number};
}

}  // namespace

Location parse_uri(std::string_view uri) {
  const std::string_view whole = uri;
  Location location;
  const size_t colon = uri.find("://");
  if (colon == std::string_view::npos) refuse(whole);
  const std::string_view scheme = uri.substr(0, colon);
  const bool local = scheme == "gluster+unix";
  location.asks_rdma = scheme == "gluster+rdma";
  if (!local && !location.asks_rdma && scheme != "gluster" && scheme != "gluster+tcp")
    refuse(whole);
  uri.remove_prefix(colon + 3);
  std::string_view query = cut(&uri, '#');
  std::string_view place = cut(&query, '?');
  const size_t slash = std::min(place.find('/'), place.size());
  const std::string_view authority = place.substr(0, slash);
  const auto skip_slashes = [&place] {
    place.remove_prefix(std::min(place.find_first_not_of('/'), place.size()));
  };
  place.remove_prefix(slash);
  skip_slashes();
  location.volume = percent_decoded(cut(&place, '/'));
  skip_slashes();
  location.path = percent_decoded(place);
  if (location.volume.empty() || location.path.empty()) refuse(whole);
  if (local) {
    std::string_view value = query;
    if (!authority.empty() || cut(&value, '=') != "socket" || value.empty() ||
        value.find('&') != std::string_view::npos)
      refuse(whole);
    location.servers.push_back({.local = true, .host = percent_decoded(value)});
  } else {
    const auto server = server_of(authority);
    if (!server || !query.empty()) refuse(whole);
    location.servers.push_back(*server);
  }
  if (has_zero(location)) refuse(whole);
  return location;
}

Location location_of(Options& options) {
  Location location;
  constexpr size_t kMostServers = 64;
  for (size_t i = 0; options.has_tree(fmt::format("server.{}", i)); ++i) {
    if (i == kMostServers) invalid("too many servers");
    const Options one = options.take_tree(fmt::format("server.{}", i));
    location.servers.push_back(server_of(one, i));
  }
  const auto need = [&options](const char* key) {
    const auto value = options.string(key);
    if (!value)
      throw Error(ErrorKind::kInvalid, "Parameter '" + std::string(key) + "' is missing")
          .hint(usage_of_options());
    return *value;
  };
  if (location.servers.empty()) need("server");
  location.volume = need("volume");
  location.path = need("path");
  if (has_zero(location)) invalid("an option has a zero byte");
  return location;
}

void add_options(const Location& location, Options& options) {
  options.set("volume", location.volume);
  options.set("path", location.path);
  for (size_t i = 0; i < location.servers.size(); ++i) {
    const Server& server = location.servers[i];
    const std::string start = fmt::format("server.{}.", i);
    options.set(start + "type", server.local ? "unix" : "inet");
    options.set(start + (server.local ? "path" : "host"), server.host);
    if (!server.local) options.set(start + "port", std::to_string(server.port));
  }
}

}  // namespace cairn::gluster
