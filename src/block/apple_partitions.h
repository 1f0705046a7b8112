#pragma once

#include <optional>

#include "block/partitions.h"

namespace cairn {

// Reads an Apple partition map: a driver descriptor in the first block, then one entry a block.
// Nothing when there is none. Entries that leave the disk are left out with a warning.
Task<std::optional<PartitionTable>> read_apple_partitions(PartitionSource& source);

}  // namespace cairn
