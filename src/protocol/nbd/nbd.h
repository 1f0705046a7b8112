#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Disks that an NBD server exports.
std::unique_ptr<Driver> make_nbd_driver();

}  // namespace cairn
