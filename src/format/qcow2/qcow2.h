#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// QEMU's copy-on-write format, versions 2 and 3.
std::unique_ptr<Driver> make_qcow2_driver();

}  // namespace cairn
