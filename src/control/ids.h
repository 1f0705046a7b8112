#pragma once

#include "control/control.h"

namespace cairn::control {

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
  kDaemonState,
};

}  // namespace cairn::control
