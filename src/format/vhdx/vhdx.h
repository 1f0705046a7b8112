// src/format/vhdx: the VHDX images of Hyper-V and Windows. layout.h holds headers, region table,
// metadata, locators and the geometry as pure types; log_reader.h finds what a log holds, overlay.h
// shows a file as it will be after replay; pages.h is the cache of metadata, journal.h writes it
// through headers and log; node.h is the open image (open.cc, mapper.cc: mapping, space.cc: room
// for writes, resize.cc, check.cc); create.cc writes new images; driver.cc registers the format.
// May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_vhdx_driver();

}  // namespace cairn
