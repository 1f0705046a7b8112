#include "cli/daemon/daemon.h"
#include "cli/io/io.h"
#include "cli/nbd/nbd.h"

namespace cairn::cli {

const std::vector<Tool>& tools() {
  static const std::vector<Tool> table = {
      {"qemu-io", "io", "reads and writes bytes of a disk, command by command", run_io,
       "[OPTIONS] [-c COMMAND]… [FILE]", io_flags},
      {"qemu-nbd", "nbd", "serves one disk to NBD clients, with the options of qemu-nbd",
       run_qemu_nbd, "[OPTIONS] FILE | -L [OPTIONS]", nbd_flags},
      {"qemu-storage-daemon", "daemon", "holds disks open for others, and takes commands in QMP",
       run_daemon, "[OPTIONS]", daemon_flags},
  };
  return table;
}

}  // namespace cairn::cli
