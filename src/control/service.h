#pragma once

#include "daemon/daemon.h"

namespace cairn::control {

// Where the service manager gets notices, and how often it expects them, as it said.
struct ServiceVariables {
  std::string notify, watchdog;
};

// What a service manager has put into the environment: where it gets notices of
// how the program does (NOTIFY_SOCKET, WATCHDOG_USEC), and the sockets that it has opened
// (LISTEN_FDS, LISTEN_FDNAMES). The variables are removed, so that no other program takes them for
// its own, and given. Once, before there are threads. Throws kInvalid for numbers that make no
// sense.
ServiceVariables take_service_variables(daemon::DaemonOptions& options);

}  // namespace cairn::control
