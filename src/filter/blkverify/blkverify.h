#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// A disk that is kept twice: every write goes to "test" and to "raw", every read is done on both
// and fails when they differ. Written as blkverify:RAW:TEST as well.
std::unique_ptr<Driver> make_blkverify_driver();

}  // namespace cairn
