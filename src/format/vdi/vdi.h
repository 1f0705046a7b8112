// src/format/vdi: VirtualBox disk images, version 1.1. layout.h holds the header as a pure type;
// node.h is the open image (mapper.cc: mapping and room for writes, resize.cc: other sizes and
// closing holes, check.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_vdi_driver();

}  // namespace cairn
