#pragma once

#include <memory>
#include <string>

#include "cli/session.h"
#include "operation/nbd_client.h"

namespace cairn::cli {

// Prints what the server at ADDRESS exports, as `qemu-nbd -L`; the exit code. Throws Error.
int list_exports(Session& session, const SocketAddress& address,
                 std::shared_ptr<const TlsCredentials> tls, const std::string& hostname);

}  // namespace cairn::cli
