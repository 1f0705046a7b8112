#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Data that is read from below the image in "file" is stored in the image on the way, so that the
// next read finds it there.
std::unique_ptr<Driver> make_copy_on_read_driver();

}  // namespace cairn
