#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "async/task.h"
#include "net/nbd_wire.h"
#include "net/stream.h"
#include "net/tls.h"

namespace cairn::nbd::client {

// What a client wants of a server.
struct Wish {
  std::string export_name;
  // The metadata context whose extents are asked for.
  std::string context = "base:allocation";
  bool context_required = false;  // fail when the server has it not
  // TLS is demanded when these are there; the name is what the certificate must have.
  std::shared_ptr<const TlsCredentials> tls;
  std::string tls_hostname;
};

// What was agreed on.
struct Agreement {
  uint64_t size = 0;
  uint16_t flags = 0;  // transmission flags
  bool structured = false;
  bool extended = false;
  std::optional<BlockSizeInfo> blocks;
  std::optional<uint32_t> context;  // its number
  bool offers(uint16_t flag) const { return (flags & flag) != 0; }
};

// Speaks the handshake of a client over STREAM until transmission begins. Every length is checked
// against the protocol's limits before it is used, and the number of replies is bounded. Throws
// kInvalid when the server breaks the protocol or has no such export, kDenied about TLS, kIo when
// the connection breaks.
Task<Agreement> shake_hands(Stream& stream, const Wish& wish);

// Fills OUT from the server; an error says that WHAT could not be read. Throws kIo when the
// connection breaks or ends before.
Task<void> read_from_server(Stream& stream, MutableByteSpan out,
                            std::string_view what = "option reply");

}  // namespace cairn::nbd::client
