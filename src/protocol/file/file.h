#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Regular files; block or character devices of the host; its CD-ROM drives.
std::unique_ptr<Driver> make_file_driver();
std::unique_ptr<Driver> make_host_device_driver();
std::unique_ptr<Driver> make_host_cdrom_driver();

}  // namespace cairn
