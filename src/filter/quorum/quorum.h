#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// A disk that is kept several times: every write goes to all children, every read is decided by a
// vote of what they hold, or answered by the first that can.
std::unique_ptr<Driver> make_quorum_driver();

}  // namespace cairn
