#pragma once

#include <string>

#include "cli/nbd/plan.h"

namespace cairn::cli {

// Serves PLAN's image to the kernel, which shows it as DEVICE (/dev/nbdN), until the device is
// disconnected. Talks to the kernel through the netlink family "nbd". Throws with QEMU's words.
Task<void> serve_device(Session& session, ServePlan plan, std::string device, bool verbose);

// Disconnects DEVICE; the exit code.
int disconnect_device(Session& session, const std::string& device);

}  // namespace cairn::cli
