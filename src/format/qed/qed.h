// src/format/qed: QEMU's Enhanced Disk. layout.h holds the header as a pure type; node.h is the
// open image (open.cc: opening and the header's changes, mapper.cc: mapping and room for writes,
// check.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_qed_driver();

}  // namespace cairn
