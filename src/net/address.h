#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/options.h"

namespace cairn {

// Where a peer listens, spelled as QEMU's SocketAddress.
struct SocketAddress {
  enum class Kind { kInet, kUnix, kVsock, kFd };
  Kind kind = Kind::kInet;
  std::string host;  // inet
  std::string port;  // inet and vsock: a number or (inet) a service name
  std::optional<bool> ipv4, ipv6;
  std::optional<uint16_t> to;  // inet, listening: try the ports from port up to here
  bool numeric = false;        // inet: host is no name to be looked up
  bool keep_alive = false;
  bool mptcp = false;
  std::string path;        // unix; of an abstract socket without the first NUL
  bool abstract = false;   // unix: in the abstract name space of Linux
  bool tight = true;       // abstract: the name ends where the text ends
  std::string cid;         // vsock
  std::string descriptor;  // fd: the number of an inherited, connected or listening socket

  bool operator==(const SocketAddress&) const = default;

  static SocketAddress inet(std::string host, std::string port);
  static SocketAddress unix_path(std::string path);
  // Takes "type" and its members out of OPTIONS and refuses what does not belong to it. Throws
  // kInvalid.
  static SocketAddress from_options(const Options& options);
  // The members as an object, "type" first; the inverse of from_options().
  Value to_value() const;
  // For messages: "host:port", the path, "vsock:CID:PORT", "fd:N".
  std::string text() const;
};

}  // namespace cairn
