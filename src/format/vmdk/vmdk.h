// src/format/vmdk: VMware's disks. descriptor.h is the text that names the parts of a disk;
// layout.h holds the binary headers and markers as pure types; node.h is the open disk (open.cc:
// finding the parts, mapper.cc: mapping, grant.cc: room for writes, stream.cc: streamOptimized,
// check.cc); create.cc makes disks and driver.cc registers the format. May include src/block and
// below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_vmdk_driver();

}  // namespace cairn
