#pragma once

#include <string>
#include <string_view>

#include "async/task.h"
#include "daemon/daemon.h"

namespace cairn::daemon {

// Does what one option of the command line says; NAME without "--": blockdev, chardev, export,
// monitor, nbd-server or object. Throws what is wrong, without the option's name. On the daemon's
// worker.
Task<void> run_option(Daemon& daemon, std::string name, std::string argument);

// The list that --chardev help prints.
std::string chardev_help();

}  // namespace cairn::daemon
