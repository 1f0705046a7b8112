#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/nbd_wire.h"
#include "net/stream.h"
#include "net/tls.h"

namespace cairn::operation {

// What an NBD server says of one of its exports.
struct ListedExport {
  std::string name, description;
  std::optional<nbd::ExportInfo> info;
  std::optional<nbd::BlockSizeInfo> sizes;
  std::vector<std::string> contexts;
};
struct ExportList {
  std::vector<ListedExport> exports;
  bool extended = false;  // the server has extended headers
};

// Asks the server at ADDRESS what it exports. Throws what went wrong.
Task<ExportList> list_exports(SocketAddress address, std::shared_ptr<const TlsCredentials> tls,
                              std::string hostname);

// The client's half of the oldest handshake that a kernel can go on from: no structured replies.
// Gives the export's size and transmission flags.
struct PlainExport {
  uint64_t size = 0;
  uint16_t flags = 0;
};
Task<PlainExport> negotiate_plain(Stream& stream, std::string name);

}  // namespace cairn::operation
