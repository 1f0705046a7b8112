// src/format/cloop: compressed loop images, read only. layout.h holds the header and what entries
// of the offset table say, as pure types; node.h is the open image; driver.cc registers the format.
// May include src/block, src/codec and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_cloop_driver();

}  // namespace cairn
