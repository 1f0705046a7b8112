#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Delays requests so that the nodes of one throttle group together keep to its limits (block/
// throttle_group.h).
std::unique_ptr<Driver> make_throttle_driver();

}  // namespace cairn
