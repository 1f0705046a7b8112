// src/cli/daemon: `qemu-storage-daemon` (as a verb: `cairn daemon`): its command line, going to the
// background, the PID file. What it does when it runs is in src/daemon.
#pragma once

#include "cli/session.h"

namespace cairn::cli {

// ARGV[0] is the program's name.
int run_daemon(Session& session, int argc, char** argv);
// Its options, with those that only `cairn daemon` has.
std::vector<Flag> daemon_flags();

}  // namespace cairn::cli
