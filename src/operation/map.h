#pragma once

#include <cstdint>
#include <functional>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// A range of a disk, whose bytes are all alike in where they are.
struct MapPiece {
  uint64_t start = 0;
  Extent extent;
};

struct MapOptions {
  uint64_t start = 0;          // first byte
  uint64_t most = UINT64_MAX;  // bytes at most
  // Gets the pieces in order; neighbours that continue each other come as one, and an empty range
  // is one empty piece. May throw, which ends the work.
  std::function<void(const MapPiece&)> found;
  // Called once the image is open.
  std::function<void()> opened = [] {};
};

// Opens the image of REQUEST and reports where the bytes of the disk are.
Task<void> map(const Caller& caller, OpenRequest request, MapOptions options);

}  // namespace cairn::operation
