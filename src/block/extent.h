#pragma once

#include <cstdint>

namespace cairn {

class Node;

// What a node says about the bytes from some offset on. All lengths in bytes.
struct Extent {
  uint64_t length = 0;     // up to where the rest holds; never 0 within the node
  bool data = false;       // bytes are stored (true with zero: stored, and known to be zeroes)
  bool zero = false;       // reads as zeroes
  bool allocated = false;  // decided by this layer rather than by the one below
  bool compressed = false;
  Node* host = nullptr;  // where the bytes are verbatim, or null (none, compressed, encrypted)
  uint64_t host_offset = 0;
  unsigned depth = 0;  // which layer of the backing chain decided; 0 is the node asked
};

// What a node can do at a time and how requests to it must be aligned. The request layer makes
// other requests fit. Powers of two, bytes.
struct Limits {
  uint32_t request_alignment = 1;  // offset and length of read and write
  uint32_t memory_alignment = 1;   // address of buffers
  uint64_t max_transfer = 0;       // longest read or write; 0: none
  uint64_t zero_alignment = 1;     // write_zeroes below it is written as data
  uint64_t discard_alignment = 1;  // discards shrink to multiples of it
  bool remote = false;             // requests travel: many at a time pay
  bool distant = false;            // … and for long: much at a time pays
  bool native_fua = false;         // writes carry fua to the driver; else a flush follows them
  uint64_t cluster_bytes = 0;      // unit of allocation; 0: none
};

}  // namespace cairn
