#pragma once

#include <functional>
#include <string>

#include "operation/serve.h"

namespace cairn::operation {

// Serves PLAN's image to the kernel, which shows it as DEVICE (/dev/nbdN), until the device is
// disconnected; CONNECTED is called when it is asked to. Talks to the kernel through the netlink
// family "nbd". Throws with QEMU's words.
Task<void> serve_device(Caller& caller, ServePlan plan, std::string device,
                        std::function<void()> connected);

// Disconnects DEVICE. What is no block device is an error for a guarded CALLER only.
void disconnect_device(const Caller& caller, const std::string& device);

}  // namespace cairn::operation
