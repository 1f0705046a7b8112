#include <algorithm>

#include "base/arith.h"
#include "block/debug.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

uint64_t Qcow2Node::vm_state_offset() const { return align_up(length(), header_.l2_range()); }

Task<void> Qcow2Node::read_vm_state(uint64_t offset, MutableByteSpan out) {
  const auto end = checked_add(offset, out.size());
  if (!end || *end > static_cast<uint64_t>(INT64_MAX) - vm_state_offset())
    throw Error::system(EFBIG);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kVmstateLoad);
  co_await do_read(vm_state_offset() + offset, out);
}

Task<void> Qcow2Node::write_vm_state(uint64_t offset, ByteSpan in) {
  if (read_only()) throw Error::system(EACCES, filename() + ": the image is open read-only");
  const auto end = checked_add(offset, in.size());
  if (!end || *end > static_cast<uint64_t>(INT64_MAX) - vm_state_offset())
    throw Error::system(EFBIG);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kVmstateSave);
  const uint64_t begin = vm_state_offset() + offset;
  const uint64_t entries = div_ceil(begin + in.size(), header_.l2_range());
  if (entries > l1_count_) {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    if (entries > l1_count_) co_await grow_l1(entries);
  }
  co_await do_write(begin, in, {});
}

Task<uint64_t> Qcow2Node::vm_state_hole(uint64_t offset, uint64_t max) {
  const auto end = checked_add(offset, max);
  if (!end || *end > static_cast<uint64_t>(INT64_MAX) - vm_state_offset())
    throw Error::system(EFBIG);
  const uint64_t begin = vm_state_offset() + offset;
  const uint64_t tables_end = l1_count_ * header_.l2_range();
  if (begin >= tables_end) co_return max;
  const Mapping found = co_await map(begin, std::min(max, tables_end - begin));
  const bool hole = found.kind == Mapping::Kind::kBelow || found.kind == Mapping::Kind::kZero;
  co_return hole ? found.length : 0;
}

}  // namespace cairn
