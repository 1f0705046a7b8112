// src/format/bochs: the redologs of Bochs: growing disks, and undoable and volatile ones over a
// flat base. Read only. layout.h holds the header as a pure type; node.h is the open image
// (node.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_bochs_driver();

}  // namespace cairn
