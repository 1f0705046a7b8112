// The parts of the request layer that widen requests to what a driver can do.
#include "block/unaligned.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/debug.h"
#include "block/driver.h"
#include "block/node.h"

namespace cairn {
namespace {

// Protocols, raw and filters: what is written goes to its place as it is.
bool passes_bytes_on(const Driver& driver) {
  return driver.kind() == DriverKind::kProtocol || driver.traits().verbatim;
}

}  // namespace

Task<void> Node::read_unaligned(uint64_t offset, MutableByteSpan out) {
  const uint64_t alignment = limits_.request_alignment;
  const uint64_t most = limits_.max_transfer ? limits_.max_transfer : uint64_t{4} << 20;
  AlignedBuffer bounce;
  while (!out.empty()) {
    if (is_aligned(offset, alignment) && memory_fits(out.data(), limits_) &&
        out.size() >= alignment) {
      const size_t part = align_down(std::min<uint64_t>(out.size(), most), alignment);
      co_await do_read(offset, out.first(part));
      offset += part;
      out = out.subspan(part);
      continue;
    }
    const uint64_t begin = align_down(offset, alignment);
    const uint64_t end =
        std::min(align_up(offset + out.size(), alignment), begin + align_up(most, alignment));
    if (bounce.size() < end - begin) bounce = AlignedBuffer(end - begin);
    co_await do_read(begin, bounce.span().first(end - begin));
    const size_t part = std::min<uint64_t>(out.size(), end - offset);
    std::memcpy(out.data(), bounce.data() + (offset - begin), part);
    offset += part;
    out = out.subspan(part);
  }
}

// Lets a fault filter at or below the node know that what surrounds a write is read, or was.
Task<void> Node::tell_widening(bool head, bool tail, bool done) {
  DebugPort* port = debug_port();
  if (port == nullptr) co_return;
  if (head)
    co_await port->event(done ? DebugEvent::kPwritevRmwAfterHead : DebugEvent::kPwritevRmwHead);
  if (tail)
    co_await port->event(done ? DebugEvent::kPwritevRmwAfterTail : DebugEvent::kPwritevRmwTail);
}

Task<void> Node::write_unaligned(uint64_t offset, ByteSpan in, WriteFlags flags) {
  const uint64_t alignment = limits_.request_alignment;
  // Storage ends where the request does, or where it ended before: its last block may be short.
  const uint64_t disk_end = passes_bytes_on(driver_) ? std::max(length(), offset + in.size())
                                                     : std::numeric_limits<uint64_t>::max();
  const uint64_t most =
      align_down(limits_.max_transfer ? limits_.max_transfer : uint64_t{4} << 20, alignment);
  AlignedBuffer bounce;
  while (!in.empty()) {
    const uint64_t begin = align_down(offset, alignment);
    const bool whole = is_aligned(offset, alignment) && in.size() >= alignment;
    // Whole blocks go as they are when the memory fits, else through the bounce buffer; a widened
    // block keeps its neighbours out until it is written back.
    const uint64_t end = whole ? begin + align_down(std::min<uint64_t>(in.size(), most), alignment)
                               : begin + alignment;
    RangeLock::Guard guard;
    co_await unaligned_.acquire(guard, begin, end - begin, !whole);
    const size_t part = std::min<uint64_t>(in.size(), end - offset);
    if (whole && memory_fits(in.data(), limits_)) {
      guard_block_zero(offset, in.first(part));
      co_await do_write(offset, in.first(part), flags);
    } else {
      if (bounce.size() < end - begin) bounce = AlignedBuffer(end - begin);
      const MutableByteSpan block = bounce.span().first(end - begin);
      if (!whole) {
        const bool head = offset > begin;
        const bool tail = offset + part < end;
        co_await tell_widening(head, tail, false);
        co_await do_read(begin, block);
        co_await tell_widening(head, tail, true);
      }
      std::memcpy(block.data() + (offset - begin), in.data(), part);
      const ByteSpan kept = block.first(std::min<uint64_t>(block.size(), disk_end - begin));
      guard_block_zero(begin, kept);
      co_await do_write(begin, kept, flags);
    }
    offset += part;
    in = in.subspan(part);
  }
}

}  // namespace cairn
