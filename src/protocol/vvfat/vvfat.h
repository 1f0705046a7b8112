// src/protocol/vvfat: a folder of the host, shown as a disk with a FAT file system. layout.h holds
// the structures of FAT as pure types, names.h turns names of the host into those of FAT and back,
// host_folder.h reaches what is in the folder and nothing else, tree.h reads it, image.h lays it
// out on the disk, node.h is the open disk; driver.cc registers it. What a guest writes:
// write_node.h takes it, guest.h reads it as a file system, changes.h finds out what was done, and
// commit.h does that to the folder. May include src/block and below.
#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

std::unique_ptr<Driver> make_vvfat_driver();

}  // namespace cairn
