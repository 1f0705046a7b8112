#pragma once

#include <memory>
#include <string>

#include "cli/session.h"
#include "net/stream.h"
#include "net/tls.h"

namespace cairn::cli {

// Prints what the server at ADDRESS exports, as `qemu-nbd -L`; the exit code. Throws Error.
int list_exports(Session& session, const SocketAddress& address,
                 std::shared_ptr<const TlsCredentials> tls, const std::string& hostname);

// The client's half of the oldest handshake that a kernel can go on from: no structured replies.
// Gives the export's size and transmission flags.
struct PlainExport {
  uint64_t size = 0;
  uint16_t flags = 0;
};
Task<PlainExport> negotiate_plain(Stream& stream, std::string name);

}  // namespace cairn::cli
