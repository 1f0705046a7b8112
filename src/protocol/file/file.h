#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Regular files, and block or character devices of the host.
std::unique_ptr<Driver> make_file_driver();
std::unique_ptr<Driver> make_host_device_driver();

}  // namespace cairn
