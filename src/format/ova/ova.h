// src/format/ova: appliances of virtual machines in one file (OVA), as an image of the disk inside:
// a tar archive of an OVF descriptor, a manifest and disks. May include what every format may, and
// the XML library; the disk's own format is looked up in the registry.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_ova_driver();

}  // namespace cairn
