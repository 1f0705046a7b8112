// src/control: the daemon's command lines: `qemu-storage-daemon` (as a verb: `cairn daemon`), which
// starts it, and `cairn ctl`, which talks to it. What the daemon does when it runs is in
// src/daemon. May include src/cli and src/daemon, which know nothing of each other.
#pragma once

#include "cli/session.h"

namespace cairn::control {

using namespace cli;

// The daemon as a program and a verb.
Tool daemon_tool();
Verb ctl_verb();

// ARGV[0] is the program's name. Gives the exit code; throws as a Tool's function may.
int run_daemon(Session& session, int argc, char** argv);
// Its options, with those that only `cairn daemon` has.
std::vector<Flag> daemon_flags();

}  // namespace cairn::control
