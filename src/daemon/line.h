#pragma once

#include <string>
#include <string_view>

#include "async/task.h"
#include "daemon/daemon.h"

namespace cairn::daemon {

// Does what one option of the command line says; NAME without "--": blockdev, chardev, export,
// metrics, monitor, nbd-server, object or state. Throws what is wrong, without the option's name.
// On the daemon's worker.
Task<void> run_option(Daemon& daemon, std::string name, std::string argument);

// Checks what run_option() checks before it does anything: names of keys, their values, what is
// missing. Opens nothing, and does not see whether what is referred to exists. Throws like it.
void check_option(const std::string& name, const std::string& argument);

// What the options object and chardev print when ARGUMENT asks for help; empty when it does not.
// EXTENSIONS: with what QEMU's objects have not.
std::string help_of(std::string_view option, const std::string& argument, bool extensions);

}  // namespace cairn::daemon
