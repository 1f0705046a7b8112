#pragma once

#include <functional>

#include "base/own_fd.h"
#include "net/address.h"
#include "net/socket.h"

namespace cairn {

// Connects to an internet address on the calling thread, trying every address that the host's name
// has, without delays between small pieces. CHECK is called several times a second and ends the
// attempt by throwing. For threads that serve a library; coroutines have connect_socket(). Throws
// as that one.
OwnFd connect_now(const SocketAddress& address, Deadline deadline,
                  const std::function<void()>& check);

}  // namespace cairn
