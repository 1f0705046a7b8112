#pragma once

#include <string>

#include "block/node.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

// The file system on a disk as it is now, after a guest has written.
struct GuestReading {
  // As scan() gives it. Entry::name is what a new file would be called on the host; empty when no
  // file may have that name. Of Entry::stamp only the bytes are known.
  Tree tree;
  // Why the disk holds no whole file system at this moment; empty: it does.
  std::string trouble;
};

// Reads the first table and all directories of DISK, on which GEOMETRY still holds. Nothing a guest
// has written makes it throw: only reading does.
Task<GuestReading> read_guest(Geometry geometry, NodePtr disk);

}  // namespace cairn::vvfat
