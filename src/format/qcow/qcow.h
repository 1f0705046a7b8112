// src/format/qcow: version 1 of QEMU's copy-on-write images. layout.h holds the header and the
// entries of the tables as pure types; node.h is one open image (open.cc: opening, mapper.cc:
// mapping and room for writes, compressed.cc: compressed clusters, check.cc); driver.cc registers
// the format. May include src/block, src/codec, src/crypto and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_qcow_driver();

}  // namespace cairn
