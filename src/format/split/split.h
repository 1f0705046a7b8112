// src/format/split: raw disks that were cut into numbered files (disk.001, disk.002, …), joined to
// one. pieces.h finds them; node.h is the open disk; driver.cc registers the format. May include
// src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_split_driver();

}  // namespace cairn
