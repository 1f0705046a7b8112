#include "cli/io/io.h"
#include "cli/nbd/nbd.h"

namespace cairn::cli {

namespace {

std::vector<Tool>& all_tools() {
  static std::vector<Tool> all = {
      {"qemu-io", "io", "reads and writes bytes of a disk, command by command", run_io,
       "[OPTIONS] [-c COMMAND]… [FILE]", io_flags},
      {"qemu-nbd", "nbd", "serves one disk to NBD clients, with the options of qemu-nbd",
       run_qemu_nbd, "[OPTIONS] FILE | -L [OPTIONS]", nbd_flags},
  };
  return all;
}

}  // namespace

const std::vector<Tool>& tools() { return all_tools(); }

void add(const Tool& tool) { all_tools().push_back(tool); }

}  // namespace cairn::cli
