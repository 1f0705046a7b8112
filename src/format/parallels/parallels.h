// src/format/parallels: the disks of Parallels and Virtuozzo. layout.h holds the header and the
// format extension as pure types, bundle.h the descriptor of a folder; node.h is one open image
// (open.cc: opening, extension.cc: what follows the header, mapper.cc: mapping and room for writes,
// check.cc), bundle_node.h the disk of a folder with its snapshots; driver.cc registers the format.
// May include src/block, src/crypto and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_parallels_driver();

}  // namespace cairn
