// src/format/packed: files that are compressed as a whole, seen as what they contain. They are
// unpacked once, to an unnamed temporary file, when they are opened.
#pragma once

#include <memory>

#include "block/driver.h"
#include "codec/unpack.h"

namespace cairn {

std::unique_ptr<Driver> make_packed_driver(Packing packing);

}  // namespace cairn
