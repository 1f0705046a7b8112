#include "cli/nbd/nbd.h"

namespace cairn::cli {

const std::vector<Tool>& tools() {
  static const std::vector<Tool> table = {
      {"qemu-nbd", "nbd", "serves one disk to NBD clients, with the options of qemu-nbd",
       run_qemu_nbd},
  };
  return table;
}

}  // namespace cairn::cli
