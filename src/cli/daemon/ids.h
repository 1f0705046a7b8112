#pragma once

#include "cli/session.h"

namespace cairn::cli {

enum DaemonId : int {
  kDaemonBlockdev = kFirstOwn + 100,
  kDaemonExport,
  kDaemonNbdServer,
  kDaemonChardev,
  kDaemonMonitor,
  kDaemonObject,
  kDaemonDaemonize,
  kDaemonPidfile,
  kDaemonConfig,
  kDaemonCheckConfig,
  kDaemonMetrics,
  kDaemonLog,
};

}  // namespace cairn::cli
