#pragma once

#include "platform/windows/descriptors.h"

namespace cairn::platform {

// Before the first call about sockets.
void start_sockets();

}  // namespace cairn::platform
