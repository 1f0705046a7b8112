#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cairn {

// What an image says about one of its internal snapshots.
struct SnapshotRecord {
  std::string id;
  std::string name;
  uint32_t date_seconds = 0;  // since the epoch
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock = 0;        // how long the machine had run, ns
  uint64_t vm_state_bytes = 0;  // of the machine's state that is kept with it
  uint64_t disk_bytes = 0;
  std::optional<uint64_t> icount;  // instructions that the machine had executed
  std::vector<std::byte> extra;    // what else the format keeps with it, as it is in the image
};

}  // namespace cairn
