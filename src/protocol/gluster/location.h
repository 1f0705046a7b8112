#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"

namespace cairn::gluster {

// Where the description of a volume is fetched.
struct Server {
  bool local = false;  // HOST is the path of a socket
  std::string host;
  int port = 0;

  auto operator<=>(const Server&) const = default;
};

// A file of a volume.
struct Location {
  std::string volume, path;
  std::vector<Server> servers;  // tried in this order
  bool asks_rdma = false;       // a transport that is gone; tcp is used
};

// Of "gluster[+tcp|+unix|+rdma]://[HOST[:PORT]]/VOLUME/PATH[?socket=PATH]". Throws kInvalid with
// QEMU's words.
Location parse_uri(std::string_view uri);

// Of the options volume, path and server.N.…, which it takes out. Throws kInvalid with QEMU's
// words.
Location location_of(Options& options);

// The options that mean the same as LOCATION.
void add_options(const Location& location, Options& options);

}  // namespace cairn::gluster
