#pragma once

#include <cstdint>

namespace cairn {

// What requests that go past the memory of the system are multiples of.
struct Alignment {
  uint32_t request = 1;  // offsets and lengths
  uint32_t memory = 1;   // addresses
};

// Of the open file or device FD, found by trying. BLOCK is what a device says of itself; 0: it says
// nothing. Throws kInvalid where nothing works. Blocks.
Alignment find_alignment(int fd, uint32_t block);

}  // namespace cairn
