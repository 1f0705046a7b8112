#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "base/bytes.h"
#include "base/options.h"
#include "base/value.h"
#include "block/capability.h"
#include "block/dirty_bitmap.h"
#include "block/extent.h"
#include "block/node_base.h"

namespace cairn {

// Flags of writes.
struct WriteFlags {
  bool fua = false;          // on stable storage when the write returns
  bool may_unmap = false;    // write_zeroes: space may be given back
  bool no_fallback = false;  // write_zeroes: fail with kUnsupported rather than write zero buffers
};

enum class Preallocation { kOff, kMetadata, kFalloc, kFull };
// The word for an option, and back (throws kInvalid with QEMU's wording for OPTION).
std::string_view to_string(Preallocation mode);
Preallocation parse_preallocation(std::string_view text);

struct ResizeRequest {
  uint64_t length = 0;  // bytes
  Preallocation preallocation = Preallocation::kOff;
  bool exact = true;      // false: a longer node is good enough
  bool round_up = false;  // formats that count in sectors get whole ones, all else the length
};

// A block device of a known size. Everything is one: a file, an image, an export, a filter.
//
// The public methods are the request layer: they check the range, split and align, emulate what a
// driver cannot do, and call the driver's protected do_…() methods, which therefore never see a
// request outside of the node or against its Limits. Any number of workers may call into one node
// at the same moment. Buffers must live until the returned task has ended.
class Node : public NodeBase, public std::enable_shared_from_this<Node> {
 public:
  Node(Context& context, const Driver& driver);
  virtual ~Node();

  // The capability T of block/capabilities/, null where the node has it not. Cheap, but not for
  // every request.
  template <class T>
  T* as() {
    return static_cast<T*>(find_capability(&T::kCapability));
  }
  template <class T>
  const T* as() const {
    return const_cast<Node*>(this)->as<T>();
  }

  // Reads OUT.size() bytes. Throws kIo when the range leaves the node.
  Task<void> read(uint64_t offset, MutableByteSpan out);
  // Writes all of IN. Throws kDenied when the node is read-only. A failed write leaves the range
  // undefined, nothing else.
  Task<void> write(uint64_t offset, ByteSpan in, WriteFlags flags = {});
  // As write() of zero bytes, without a buffer where the driver can.
  Task<void> write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags = {});
  // The content of the range is no longer needed; a hint.
  Task<void> discard(uint64_t offset, uint64_t length);
  // The range will be read soon: nodes that keep copies fetch them. Throws as reading.
  Task<void> prefetch(uint64_t offset, uint64_t length);
  // When it returns, every write that had returned before is on stable storage.
  Task<void> flush();
  // The state of the bytes from OFFSET on, at most MAX of them, as this layer knows it: not
  // allocated means that the layer below decides.
  Task<Extent> layer_extent_at(uint64_t offset, uint64_t max);
  // The same through the whole backing chain: depth says which layer decided, host where the
  // bytes are verbatim in a storage node. Zero areas inside data that the storage knows count too.
  virtual Task<Extent> extent_at(uint64_t offset, uint64_t max);
  // Changes the size. Throws kUnsupported where the driver cannot.
  Task<void> resize(ResizeRequest request);
  // Writes what is cached, releases locks and children. Must be awaited before the last reference
  // goes; errors of closing are errors of the work.
  Task<void> close();
  // Like a copy of SOURCE's range by the kernel or the server; false when that is not possible
  // (nothing was written then).
  Task<bool> copy_range_from(Node& source, uint64_t source_offset, uint64_t offset,
                             uint64_t length);

  // The dirty bitmaps: what is enabled records every write, zeroing, discard and copy from now on.
  DirtyBitmaps& bitmaps() { return dirty_bitmaps_; }
  const DirtyBitmaps& bitmaps() const { return dirty_bitmaps_; }

  // True when the storage knows that no request has changed it since it was opened.
  virtual bool nothing_written() const {
    return filtered() != nullptr && filtered()->nothing_written();
  }

  // The highest end (in bytes) of a write, zeroing or copy since the node was opened, whether it
  // succeeded or not; 0 without any. Discards do not count. Any thread.
  uint64_t highest_written() const { return highest_written_.load(std::memory_order_relaxed); }
  // Called for a request that writes up to END.
  void note_written(uint64_t end) {
    uint64_t before = highest_written();
    while (before < end && !highest_written_.compare_exchange_weak(before, end)) {
    }
  }

  // True when a fresh image of this kind reads as zeroes without being written.
  virtual bool reads_zero_when_created() const { return false; }

  // --- for what a node does besides its requests: drivers, and functions of capabilities ---
  // Throws where the range leaves the node.
  void check_range(uint64_t offset, uint64_t length) const;
  // The same before writing: kNoSpace where the node stores another one and cannot grow.
  void check_room(uint64_t offset, uint64_t length) const;
  // Throws kDenied when the node is read-only.
  void check_writable();
  // The range was changed.
  void mark_dirty(uint64_t offset, uint64_t length) {
    if (!dirty_bitmaps_.empty()) dirty_bitmaps_.mark(offset, length);
  }

 protected:
  // This node as the interface of ID; null where it has it not. A class gives what its
  // CapabilityList finds. A filter may give a capability of the node below.
  virtual void* find_capability(CapabilityId) { return nullptr; }
  // --- what drivers do; ranges are inside the node and aligned to its Limits ---
  virtual Task<void> do_read(uint64_t offset, MutableByteSpan out) = 0;
  virtual Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags);
  // Throws kUnsupported when it cannot; the request layer then writes zero buffers.
  virtual Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags);
  virtual Task<void> do_discard(uint64_t offset, uint64_t length);
  virtual Task<void> do_flush();
  virtual Task<Extent> do_extent(uint64_t offset, uint64_t max);
  virtual Task<void> do_resize(ResizeRequest request);
  virtual Task<void> do_close();
  // The child NAME is another node from now on, for drivers that keep a pointer to it. Between
  // requests. False where the driver cannot do without the old one; nothing was changed then.
  virtual bool take_child(std::string_view name, Node& child);

 private:
  void mark_written(uint64_t offset, uint64_t length) {
    if (!dirty_bitmaps_.empty()) dirty_bitmaps_.mark_written(offset, length);
  }
  friend class Graph;
  friend class Opener;
  friend class Reopener;
  friend class Root;
  // Does WORK, which changes the range, between the calls of the watch of this node.
  Task<void> watched(uint64_t offset, uint64_t length, Task<void> work);
  Task<void> discard_inside(uint64_t offset, uint64_t length);
  Task<void> copy_inside(Node& source, uint64_t source_offset, uint64_t offset, uint64_t length,
                         bool* copied);
  void guard_block_zero(uint64_t offset, ByteSpan in) const;
  Task<void> write_marking(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_inside(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_watched(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_fitting(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_checked(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_zeroes_checked(uint64_t offset, uint64_t length, WriteFlags flags);
  Task<void> read_limited(uint64_t offset, MutableByteSpan out);
  Task<void> read_inside(uint64_t offset, MutableByteSpan out);
  Task<void> read_watched(uint64_t offset, MutableByteSpan out);
  Task<void> read_fitting(uint64_t offset, MutableByteSpan out);
  Task<void> read_unaligned(uint64_t offset, MutableByteSpan out);
  Task<void> write_limited(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_unaligned(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> tell_widening(bool head, bool tail, bool done);
  Task<void> write_zero_buffers(uint64_t offset, uint64_t length, WriteFlags flags);

  bool no_flush_ = false;
  bool write_through_ = false;
  bool discard_unmap_ = false;  // discard=unmap: discards reach the driver
  enum class DetectZeroes : uint8_t { kOff, kOn, kUnmap } detect_zeroes_ = DetectZeroes::kOff;
  bool probed_raw_ = false;  // raw by guess: block 0 is protected
  bool closed_ = false;
  bool kept_ = false;                 // a Graph has it, and closes it when nothing there uses it
  std::atomic<bool> changed_{false};  // a request came that may leave metadata in memory
  const bool storage_;
  std::atomic<uint64_t> highest_written_{0};
  DirtyBitmaps dirty_bitmaps_;
  RangeLock unaligned_;  // serialises widened writes with their neighbours
};

}  // namespace cairn
