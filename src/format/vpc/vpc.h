// src/format/vpc: the VHD images of Virtual PC, Hyper-V and Azure. layout.h holds footer, header
// and parent locators as pure types; geometry.h the cylinders, heads and sectors of a size; node.h
// is the open image (open.cc, mapper.cc: mapping and room for writes, resize.cc, check.cc);
// driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_vpc_driver();

}  // namespace cairn
