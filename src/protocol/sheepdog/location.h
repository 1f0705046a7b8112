#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "net/address.h"

namespace cairn::sheepdog {

constexpr std::string_view kDefaultHost = "localhost";
constexpr std::string_view kDefaultPort = "7000";

// A VDI, or a snapshot of one.
struct VdiName {
  std::string name;       // 1 to 255 bytes
  std::string tag;        // of a snapshot; at most 255 bytes
  uint32_t snapshot = 0;  // the number of a snapshot; 0: none
  bool is_snapshot() const { return !tag.empty() || snapshot != 0; }
};

// The options server.*, vdi, snap-id and tag that NAME stands for:
//   sheepdog[+tcp]://[HOST[:PORT]]/VDI[#SNAPSHOT]
//   sheepdog+unix:///VDI?socket=PATH[#SNAPSHOT]
//   sheepdog:[HOST:PORT:]VDI[:SNAPSHOT]
// A snapshot is a number or else a tag. Throws kInvalid.
Options parse_name(std::string_view name);

// What the options name; takes them out. The daemons are those of `server`, or of `server.0`,
// `server.1` and so on, in the order in which they are tried. Throws kInvalid.
std::vector<SocketAddress> servers_of(Options& options);
VdiName vdi_of(const Options& options);

// The URI of VDI at SERVER; empty when no URI says the same.
std::string uri_of(const SocketAddress& server, const VdiName& vdi);

}  // namespace cairn::sheepdog
