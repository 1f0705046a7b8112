#include "control/control.h"
#include "control/ids.h"

namespace cairn::control {

std::vector<Flag> daemon_flags() {
  return {
      {kDaemonBlockdev, "blockdev", "DRIVER,node-name=NAME,…", "open a node of the block layer"},
      {kDaemonExport, "export", "TYPE,id=ID,node-name=NAME,…", "export a node"},
      {kDaemonNbdServer, "nbd-server", "addr.type=TYPE,…", "start the NBD server"},
      {kDaemonChardev, "chardev", "BACKEND,id=ID,…", "a character device, such as a socket"},
      {kDaemonMonitor, "monitor", "CHARDEV[,pretty=on]", "serve QMP on this character device"},
      {kDaemonObject, "object", "TYPE,id=ID,…", "an object, such as a secret"},
      {kDaemonDaemonize, "daemonize", nullptr, "continue in the background once all is set up"},
      {kDaemonPidfile, "pidfile", "PATH", "write the process ID to this file"},
      {kDaemonConfig, "config", "FILE", "do what the sections of this file say"},
      {kDaemonCheckConfig, "check-config", nullptr,
       "check options and file, open nothing, and exit"},
      {kDaemonMetrics, "metrics", "addr.type=TYPE,…", "serve numbers for Prometheus over HTTP"},
      {kDaemonLog, "log", "FILE", "append events to this file as lines of JSON; -: standard error"},
      {kDaemonState, "state", "FILE", "keep the jobs in this file, and continue those in it"},
      {'T', "trace", "PATTERN", "accepted for compatibility"},
  };
}

Tool daemon_tool() {
  return {.qemu_name = "qemu-storage-daemon",
          .verb = "daemon",
          .summary = "holds disks open for others, and takes commands in QMP",
          .run = run_daemon,
          .synopsis = "[OPTIONS]",
          .flags = daemon_flags};
}

}  // namespace cairn::control
