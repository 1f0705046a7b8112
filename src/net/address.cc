#include "net/address.h"

#include <fmt/core.h>

#include "base/error.h"

namespace cairn {
namespace {

std::string required(const Options& options, std::string_view key) {
  const auto value = options.string(key);
  if (!value) throw Error(ErrorKind::kInvalid, "Parameter '" + std::string(key) + "' is missing");
  return *value;
}

}  // namespace

SocketAddress SocketAddress::inet(std::string host, std::string port) {
  SocketAddress address;
  address.host = std::move(host);
  address.port = std::move(port);
  return address;
}

SocketAddress SocketAddress::unix_path(std::string path) {
  SocketAddress address;
  address.kind = Kind::kUnix;
  address.path = std::move(path);
  return address;
}

SocketAddress SocketAddress::from_options(const Options& options) {
  SocketAddress address;
  const std::string type = required(options, "type");
  if (type == "inet") {
    address.host = required(options, "host");
    address.port = required(options, "port");
    address.ipv4 = options.boolean("ipv4");
    address.ipv6 = options.boolean("ipv6");
    if (const auto to = options.number("to")) {
      if (*to > UINT16_MAX)
        throw Error(ErrorKind::kInvalid, "Parameter 'to' expects a 16-bit port number");
      address.to = static_cast<uint16_t>(*to);
    }
    address.numeric = options.boolean("numeric").value_or(false);
    address.keep_alive = options.boolean("keep-alive").value_or(false);
    address.mptcp = options.boolean("mptcp").value_or(false);
  } else if (type == "unix") {
    address.kind = Kind::kUnix;
    address.path = required(options, "path");
    address.abstract = options.boolean("abstract").value_or(false);
    address.tight = options.boolean("tight").value_or(true);
  } else if (type == "vsock") {
    address.kind = Kind::kVsock;
    address.cid = required(options, "cid");
    address.port = required(options, "port");
  } else if (type == "fd") {
    address.kind = Kind::kFd;
    address.descriptor = required(options, "str");
  } else {
    throw Error(ErrorKind::kInvalid, "Parameter 'type' does not accept value '" + type + "'");
  }
  if (const auto unknown = options.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid, "Parameter '" + unknown.front() + "' is unexpected");
  return address;
}

Value SocketAddress::to_value() const {
  Value value = Value::object();
  switch (kind) {
    case Kind::kInet:
      value.set("type", "inet");
      value.set("host", host);
      value.set("port", port);
      if (ipv4) value.set("ipv4", *ipv4);
      if (ipv6) value.set("ipv6", *ipv6);
      if (to) value.set("to", static_cast<unsigned>(*to));
      if (numeric) value.set("numeric", true);
      if (keep_alive) value.set("keep-alive", true);
      if (mptcp) value.set("mptcp", true);
      break;
    case Kind::kUnix:
      value.set("type", "unix");
      value.set("path", path);
      if (abstract) value.set("abstract", true);
      if (!tight) value.set("tight", false);
      break;
    case Kind::kVsock:
      value.set("type", "vsock");
      value.set("cid", cid);
      value.set("port", port);
      break;
    case Kind::kFd:
      value.set("type", "fd");
      value.set("str", descriptor);
      break;
  }
  return value;
}

std::string SocketAddress::text() const {
  switch (kind) {
    case Kind::kInet:
      return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
    case Kind::kUnix:
      return abstract ? "@" + path : path;
    case Kind::kVsock:
      return fmt::format("vsock:{}:{}", cid, port);
    case Kind::kFd:
      return "fd:" + descriptor;
  }
  return {};
}

}  // namespace cairn
