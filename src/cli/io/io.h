// src/cli/io: the exerciser of disks, `cairn io`, alias qemu-io: a shell whose commands read, write
// and look at one open image. shell.cc runs it, the command files hold what it can do, report.cc
// says how results are printed, terminal.cc edits lines.
#pragma once

#include "cli/session.h"

namespace cairn::cli {

// The whole tool, `cairn io` or `qemu-io`; ARGV[0] is its name. Gives the exit code.
int run_io(Session& session, int argc, char** argv);
// Its options.
std::vector<Flag> io_flags();

}  // namespace cairn::cli
