#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// The bytes of a file as they are, or a window of them (options offset and size).
std::unique_ptr<Driver> make_raw_driver();

}  // namespace cairn
