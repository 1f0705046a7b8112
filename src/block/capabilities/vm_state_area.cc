#include "block/capabilities/vm_state_area.h"

#include "base/error.h"
#include "block/node.h"

namespace cairn {

uint64_t vm_state_offset_of(const Node& node) {
  const auto* area = node.as<VmStateArea>();
  return area != nullptr ? area->vm_state_offset() : 0;
}

Task<void> read_vm_state(Node& node, uint64_t offset, MutableByteSpan out) {
  if (auto* area = node.as<VmStateArea>()) return area->read_vm_state(offset, out);
  throw Error::system(ENOTSUP);
}

Task<void> write_vm_state(Node& node, uint64_t offset, ByteSpan in) {
  if (auto* area = node.as<VmStateArea>()) return area->write_vm_state(offset, in);
  throw Error::system(ENOTSUP);
}

Task<uint64_t> vm_state_hole(Node& node, uint64_t offset, uint64_t max) {
  if (auto* area = node.as<VmStateArea>()) return area->vm_state_hole(offset, max);
  throw Error::system(ENOTSUP);
}

}  // namespace cairn
