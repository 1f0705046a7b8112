#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// The fault filter with QEMU's option names: rules that make requests fail once a driver above has
// come to some event, states that events lead through, breakpoints. Options and the form of the
// rules' file: docs/io.md.
std::unique_ptr<Driver> make_blkdebug_driver();

}  // namespace cairn
