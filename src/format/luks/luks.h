#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Encrypted disks as LUKS versions 1 and 2 have them; only version 1 is made.
std::unique_ptr<Driver> make_luks_driver();

}  // namespace cairn
