#pragma once

#include <cstdint>

#include "async/task.h"
#include "base/bytes.h"
#include "block/capability.h"

namespace cairn {

class Node;

// The area of an image, after the disk, in which a machine's state is kept. Offsets are counted
// from its begin. From any worker, during requests to the disk.
class VmStateArea {
 public:
  static constexpr CapabilityTag kCapability{"vm-state-area"};

  // Where the area begins in the image.
  virtual uint64_t vm_state_offset() const = 0;
  // What was never written reads as zeroes. Throws kTooLarge past what an image can address.
  virtual Task<void> read_vm_state(uint64_t offset, MutableByteSpan out) = 0;
  // A failed write leaves the range undefined, nothing else.
  virtual Task<void> write_vm_state(uint64_t offset, ByteSpan in) = 0;
  // How many bytes from OFFSET on, at most MAX, were never written.
  virtual Task<uint64_t> vm_state_hole(uint64_t offset, uint64_t max) = 0;

 protected:
  ~VmStateArea() = default;
};

// The same of any NODE. Without the capability the offset is 0 and the others throw kUnsupported.
uint64_t vm_state_offset_of(const Node& node);
Task<void> read_vm_state(Node& node, uint64_t offset, MutableByteSpan out);
Task<void> write_vm_state(Node& node, uint64_t offset, ByteSpan in);
Task<uint64_t> vm_state_hole(Node& node, uint64_t offset, uint64_t max);

}  // namespace cairn
