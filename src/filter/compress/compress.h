#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// What is written through it is stored compressed, whole clusters at a time.
std::unique_ptr<Driver> make_compress_driver();

}  // namespace cairn
