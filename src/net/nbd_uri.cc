#include "net/nbd_uri.h"

#include <fmt/core.h>

#include <array>
#include <cctype>
#include <charconv>

#include "base/error.h"
#include "base/percent.h"
#include "net/nbd_wire.h"

namespace cairn::nbd {
namespace {

[[noreturn]] void reject(const std::string& why) {
  throw Error(ErrorKind::kInvalid, "No valid URL specified: " + why);
}

std::string decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) reject("'%' without two hexadecimal digits");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::string encode(std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("-._~/").find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

std::string checked_export(std::string name) {
  if (name.size() > kMaxString) reject("the export name is longer than 4096 bytes");
  if (name.find('\0') != std::string::npos) reject("the export name contains a NUL");
  return name;
}

// "host", "host:port", "[v6]:port".
void parse_authority(std::string_view text, std::string* host, std::string* port) {
  size_t colon = std::string_view::npos;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) reject("'[' without ']'");
    *host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') reject("text after ']'");
      colon = end + 1;
    }
  } else {
    colon = text.find(':');
    *host = decode(text.substr(0, colon));
  }
  *port = std::to_string(kPort);
  if (colon == std::string_view::npos) return;
  const std::string_view number = text.substr(colon + 1);
  if (number.empty()) return;
  for (const char c : number)
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) reject("the port is not a number");
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size())
    reject("the port is larger than 65535");
  // None that anybody listens on: as if there were none.
  if (value != 0) *port = std::to_string(value);
}

bool parse_switch(const std::string& text) {
  if (text == "1" || text == "true" || text == "on") return true;
  if (text == "0" || text == "false" || text == "off") return false;
  reject("'" + text + "' is neither 0 nor 1");
}

void parse_query(Location& location, std::string_view query, std::string* socket) {
  while (!query.empty()) {
    const size_t end = query.find_first_of("&;");
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const size_t equals = pair.find('=');
    const std::string key = decode(pair.substr(0, equals));
    std::string value;
    if (equals != std::string_view::npos) value = decode(pair.substr(equals + 1));
    if (key == "socket" && socket->empty() && !value.empty())
      *socket = value;
    else if (location.tls && key == "tls-type" &&
             (value == "x509" || value == "psk" || value == "anon"))
      location.tls_type = value;
    else if (location.tls && key == "tls-hostname")
      location.tls_hostname = value;
    else if (location.tls && key == "tls-verify-peer")
      location.tls_verify_peer = parse_switch(value);
    else if (location.tls && key == "tls-certificates")
      location.tls_certificates = value;
    else if (location.tls && key == "tls-psk-file")
      location.tls_psk_file = value;
    else
      reject("unexpected parameter '" + printable(key) + "'");
  }
}

Location parse_uri(std::string_view scheme, std::string_view rest) {
  Location location;
  location.tls = scheme.starts_with("nbds");
  const std::string_view transport = scheme.substr(location.tls ? 4 : 3);
  if (transport != "" && transport != "+tcp" && transport != "+unix" && transport != "+vsock")
    reject("unknown scheme '" + std::string(scheme) + "'");
  if (const size_t hash = rest.find('#'); hash != std::string_view::npos)
    reject("an URL of NBD has no fragment");
  const size_t question = rest.find('?');
  const std::string_view query =
      question == std::string_view::npos ? std::string_view() : rest.substr(question + 1);
  rest = rest.substr(0, question);
  const size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  if (slash != std::string_view::npos)
    location.export_name = checked_export(decode(rest.substr(slash + 1)));
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) {
    location.user = decode(authority.substr(0, at));
    authority = authority.substr(at + 1);
  }
  std::string socket;
  parse_query(location, query, &socket);
  if (transport == "+unix") {
    if (!authority.empty()) reject("a Unix socket has neither host nor port");
    if (socket.empty()) reject("the parameter 'socket' is missing");
    location.server = SocketAddress::unix_path(socket);
    if (socket[0] == 0) {
      location.server.abstract = true;
      location.server.path = socket.substr(1);
    } else if (socket.find('\0') != std::string::npos) {
      reject("the socket's path contains a NUL");
    }
    return location;
  }
  if (!socket.empty()) reject("unexpected parameter 'socket'");
  if (authority.empty()) reject("the host is missing");
  std::string host;
  std::string port;
  parse_authority(authority, &host, &port);
  if (host.empty() || host.find('\0') != std::string::npos) reject("the host is missing");
  location.server = SocketAddress::inet(host, port);
  if (transport == "+vsock") {
    location.server.kind = SocketAddress::Kind::kVsock;
    location.server.cid = std::exchange(location.server.host, {});
  }
  return location;
}

[[noreturn]] void reject_address(std::string_view kind, std::string_view text) {
  throw Error(ErrorKind::kInvalid, fmt::format("error parsing {} '{}'", kind, printable(text)));
}

// What follows "nbd:" in the older spelling, with the words of QEMU, whose own this is.
Location parse_legacy(std::string_view rest) {
  Location location;
  static constexpr std::string_view kMark = ":exportname=";
  const size_t mark = rest.find(kMark);
  if (mark != std::string_view::npos) {
    location.export_name = checked_export(std::string(rest.substr(mark + kMark.size())));
    rest = rest.substr(0, mark);
  }
  if (rest.empty() || (mark != std::string_view::npos && location.export_name.empty()))
    throw Error(ErrorKind::kInvalid, "NBD server address missing");
  if (rest.starts_with("unix:")) {
    if (rest.size() == 5) reject("the path of the socket is missing");
    location.server = SocketAddress::unix_path(std::string(rest.substr(5)));
    return location;
  }
  const bool brackets = rest.starts_with('[');
  const std::string_view kind = brackets ? "IPv6 address" : "address";
  const size_t colon = brackets ? rest.find("]:") : rest.find(':');
  if (colon == std::string_view::npos) reject_address(kind, rest);
  const std::string_view host = brackets ? rest.substr(1, colon - 1) : rest.substr(0, colon);
  std::string_view port = rest.substr(colon + (brackets ? 2 : 1));
  // Options of the address may follow; what they say about listening or its kind does not matter.
  port = port.substr(0, port.find(','));
  if (port.empty()) reject_address(kind, rest);
  location.server = SocketAddress::inet(std::string(host), std::string(port));
  return location;
}

}  // namespace

bool is_nbd_name(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kSchemes = {
      "nbd:",  "nbd+tcp:",  "nbd+unix:",  "nbd+vsock:",
      "nbds:", "nbds+tcp:", "nbds+unix:", "nbds+vsock:"};
  for (const std::string_view scheme : kSchemes)
    if (name.starts_with(scheme)) return true;
  return false;
}

Location parse_location(std::string_view name) {
  if (const size_t mark = name.find("://");
      mark != std::string_view::npos && is_nbd_name(name) && name.find(':') == mark)
    return parse_uri(name.substr(0, mark), name.substr(mark + 3));
  if (name.starts_with("nbd:")) return parse_legacy(name.substr(4));
  throw Error(ErrorKind::kInvalid, "File name string for NBD must start with 'nbd:'");
}

std::string format_uri(const SocketAddress& server, std::string_view export_name, bool tls) {
  const std::string scheme = tls ? "nbds" : "nbd";
  const std::string path = export_name.empty() ? "" : encode(export_name);
  if (server.kind == SocketAddress::Kind::kUnix)
    return fmt::format("{}+unix:///{}?socket={}{}", scheme, path, server.abstract ? "%00" : "",
                       encode(server.path));
  std::string host = server.kind == SocketAddress::Kind::kVsock ? server.cid : server.host;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  std::string uri = fmt::format("{}{}://{}", scheme,
                                (server.kind == SocketAddress::Kind::kVsock ? "+vsock" : ""), host);
  if (server.port != std::to_string(kPort)) uri += ":" + server.port;
  return uri + "/" + path;
}

}  // namespace cairn::nbd
