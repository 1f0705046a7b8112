#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cairn::iscsi {

// The name of a unit that no other has: in EXTENDED COPY, what the copy is made from and to.
struct Designator {
  uint8_t code_set = 0, type = 0;  // SPC-4, 7.8.6
  std::vector<std::byte> bytes;    // none: the unit has no such name
};

// What the target says of the unit.
struct Unit {
  bool cd = false;
  bool copies = false;    // the target does EXTENDED COPY
  Designator designator;  // where it does
  bool write_protected = false;
  bool fua = false;
  bool mode_unknown = false;  // it did not say whether it can be written
  uint64_t blocks = 0;
  uint32_t block_bytes = 512;
  bool thin = false;                                // blocks may be unmapped
  bool unmapped_zero = false;                       // … and then read as zeroes
  bool unmap = false;                               // the command UNMAP
  bool same_unmaps = false, same10_unmaps = false;  // WRITE SAME (16) and (10) with the flag
  // Blocks; 0: the target does not say.
  uint64_t most_transfer = 0, most_unmap = 0, most_same = 0, unmap_unit = 0;

  bool long_addresses() const { return blocks > (uint64_t{1} << 32); }
  uint64_t bytes() const { return blocks * block_bytes; }
};

// A run of blocks that are or are not mapped.
struct Provisioning {
  uint64_t block = 0, count = 0;
  bool mapped = true;
};

}  // namespace cairn::iscsi
