// src/format/dmg: Apple disk images (UDIF), read only. layout.h holds the trailer and the block
// tables as pure types, plist.h reads the property list that carries the tables, node.h is the open
// image; driver.cc registers the format. May include src/block, src/codec, expat and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_dmg_driver();

}  // namespace cairn
