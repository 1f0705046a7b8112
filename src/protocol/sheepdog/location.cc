#include "protocol/sheepdog/location.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/error.h"
#include "base/percent.h"
#include "protocol/sheepdog/wire.h"

namespace cairn::sheepdog {
namespace {

constexpr size_t kMostServers = 64;

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string decoded(std::string_view text) {
  std::string result = percent_decoded(text);
  if (result.find('\0') != std::string::npos) invalid("the name has a zero byte");
  return result;
}

std::optional<uint32_t> snapshot_number(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (!all_digits(text) || error != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return number;
}

void set_snapshot(Options& options, const std::string& text) {
  if (snapshot_number(text))
    options.set("snap-id", text);
  else
    options.set("tag", text);
}

void set_inet(Options& options, std::string_view host, std::string_view port) {
  if (!port.empty()) {
    uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size())
      invalid("the port '" + std::string(port) + "' is no number up to 65535");
  }
  options.set("server.type", "inet");
  options.set("server.host", host.empty() ? std::string(kDefaultHost) : decoded(host));
  options.set("server.port", port.empty() ? std::string(kDefaultPort) : std::string(port));
}

// [HOST][:PORT]
void set_authority(Options& options, std::string_view authority) {
  if (authority.find('@') != std::string_view::npos)
    invalid("a Sheepdog URI has no user: " + std::string(authority));
  std::string_view host = authority;
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) invalid("the address lacks its ']'");
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) invalid("after ']' there can only be a port");
  } else if (const size_t colon = authority.find(':'); colon != std::string_view::npos) {
    host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (port.starts_with(':')) port.remove_prefix(1);
  set_inet(options, host, port);
}

Options parse_uri(std::string_view scheme, std::string_view rest) {
  Options options;
  const size_t hash = rest.find('#');
  if (hash != std::string_view::npos) {
    const std::string fragment = decoded(rest.substr(hash + 1));
    if (fragment.empty()) invalid("the snapshot after '#' is missing");
    set_snapshot(options, fragment);
    rest = rest.substr(0, hash);
  }
  std::string_view query;
  const size_t question = rest.find('?');
  if (question != std::string_view::npos) {
    query = rest.substr(question + 1);
    rest = rest.substr(0, question);
  }
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos || slash + 1 == rest.size())
    invalid("the name of the VDI is missing: sheepdog://[HOST[:PORT]]/VDI");
  const std::string_view authority = rest.substr(0, slash);
  options.set("vdi", decoded(rest.substr(slash + 1)));
  if (scheme == "sheepdog+unix") {
    if (!authority.empty())
      invalid("sheepdog+unix has a socket, and no host: " + std::string(authority));
    constexpr std::string_view kSocket = "socket=";
    if (!query.starts_with(kSocket) || query.size() == kSocket.size() ||
        query.find('&') != std::string_view::npos)
      invalid("sheepdog+unix needs the parameter socket alone: sheepdog+unix:///VDI?socket=PATH");
    options.set("server.type", "unix");
    options.set("server.path", decoded(query.substr(kSocket.size())));
    return options;
  }
  if (question != std::string_view::npos)
    invalid("a Sheepdog URI has no parameters: " + std::string(query));
  set_authority(options, authority);
  return options;
}

// [HOST:PORT:]VDI[:SNAPSHOT]
Options parse_plain(std::string_view rest) {
  Options options;
  std::string_view host, port;
  if (std::count(rest.begin(), rest.end(), ':') >= 2) {
    const size_t first = rest.find(':');
    const size_t second = rest.find(':', first + 1);
    host = rest.substr(0, first);
    port = rest.substr(first + 1, second - first - 1);
    rest = rest.substr(second + 1);
  }
  set_inet(options, host, port);
  const size_t colon = rest.find(':');
  options.set("vdi", std::string(rest.substr(0, colon)));
  if (colon != std::string_view::npos) {
    const std::string snapshot(rest.substr(colon + 1));
    if (snapshot.empty()) invalid("the snapshot after ':' is missing");
    set_snapshot(options, snapshot);
  }
  return options;
}

void append_escaped(std::string& out, std::string_view text, std::string_view special) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > ' ' && byte != 0x7f && c != '%' && special.find(c) == std::string_view::npos) {
      out += c;
      continue;
    }
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
}

}  // namespace

Options parse_name(std::string_view name) {
  const size_t colon = name.find(':');
  const std::string_view scheme = name.substr(0, colon);
  const std::string_view rest =
      colon == std::string_view::npos ? std::string_view() : name.substr(colon + 1);
  Options options;
  if (rest.starts_with("//"))
    options = parse_uri(scheme, rest.substr(2));
  else if (scheme == "sheepdog")
    options = parse_plain(rest);
  else
    invalid("this is no Sheepdog URI: " + std::string(name));
  vdi_of(options);
  return options;
}

std::vector<SocketAddress> servers_of(Options& options) {
  const auto address = [](Options part) {
    if (!part.has("type")) part.set("type", part.has("path") ? "unix" : "inet");
    const std::string type = part.string("type").value_or("");
    if (type != "inet" && type != "unix")
      invalid("Sheepdog daemons are reached by inet and unix, not by '" + type + "'");
    if (type == "inet") {
      if (!part.has("host")) part.set("host", std::string(kDefaultHost));
      if (!part.has("port")) part.set("port", std::string(kDefaultPort));
    }
    return SocketAddress::from_options(part);
  };
  std::vector<SocketAddress> servers;
  Options tree = options.take_tree("server");
  while (tree.has_tree(std::to_string(servers.size()))) {
    if (servers.size() == kMostServers) invalid("there are more than 64 servers");
    servers.push_back(address(tree.take_tree(std::to_string(servers.size()))));
  }
  if (servers.empty())
    servers.push_back(address(std::move(tree)));
  else if (!tree.empty())
    invalid("Parameter 'server." + tree.items().front().first + "' is unexpected");
  return servers;
}

VdiName vdi_of(const Options& options) {
  VdiName result;
  const auto name = options.string("vdi");
  if (!name) invalid("Parameter 'vdi' is missing");
  result.name = *name;
  result.tag = options.string("tag").value_or("");
  if (options.has("tag") && options.has("snap-id"))
    invalid("'snap-id' and 'tag' are mutually exclusive");
  if (const auto text = options.string("snap-id")) {
    const auto number = snapshot_number(*text);
    if (!number) invalid("Parameter 'snap-id' expects a number up to 4294967295");
    result.snapshot = *number;
  }
  if (result.name.empty() || result.name.size() > kLongestName)
    invalid("the name of a VDI has 1 to 255 bytes");
  if (result.tag.size() > kLongestName) invalid("the tag of a snapshot has at most 255 bytes");
  if (options.has("tag") && result.tag.empty()) invalid("the tag of the snapshot is empty");
  return result;
}

std::string uri_of(const SocketAddress& server, const VdiName& vdi) {
  if (server.ipv4 || server.ipv6 || server.to || server.abstract) return "";
  // Such a tag in a URI would be a number.
  if (snapshot_number(vdi.tag)) return "";
  const bool local = server.kind == SocketAddress::Kind::kUnix;
  std::string result = local ? "sheepdog+unix://" : "sheepdog://";
  constexpr std::string_view kOfHosts = ".-_:";
  const bool plain_host = std::all_of(server.host.begin(), server.host.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kOfHosts.find(c) != std::string_view::npos;
  });
  if (!local && (!plain_host || !all_digits(server.port))) return "";
  if (!local && (server.host != kDefaultHost || server.port != kDefaultPort))
    result += server.text();
  result += '/';
  append_escaped(result, vdi.name, "?#");
  if (local) {
    result += "?socket=";
    append_escaped(result, server.path, "#&");
  }
  if (vdi.is_snapshot()) result += '#';
  if (vdi.tag.empty() && vdi.snapshot != 0) result += std::to_string(vdi.snapshot);
  append_escaped(result, vdi.tag, "");
  return result;
}

}  // namespace cairn::sheepdog
