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
#include "block/dirty_bitmap.h"
#include "block/extent.h"
#include "block/permissions.h"
#include "block/snapshot.h"

namespace cairn {

class Context;
class DebugPort;
class Driver;
class Node;
using NodePtr = std::shared_ptr<Node>;

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
  bool exact = true;  // false: a longer node is good enough
};

// One finding count of check(); lines of detail go to the CheckRequest's report function.
struct CheckResult {
  uint64_t corruptions = 0, leaks = 0, check_errors = 0;
  uint64_t corruptions_fixed = 0, leaks_fixed = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0,
           compressed_clusters = 0;
  // Of a check without repair: what a repair would do, a line each, and in which mode.
  std::vector<std::string> plan;
};

// What a child is for.
enum class ChildRole { kFile, kBacking, kDataFile, kExtent, kFiltered };

struct Child {
  std::string name;  // "file", "backing", "data-file", "extents.0", …
  NodePtr node;
  ChildRole role = ChildRole::kFile;
};

// A block device of a known size. Everything is one: a file, an image, an export, a filter.
//
// The public methods are the request layer: they check the range, split and align, emulate what a
// driver cannot do, and call the driver's protected do_…() methods, which therefore never see a
// request outside of the node or against its Limits. Any number of workers may call into one node
// at the same moment. Buffers must live until the returned task has ended.
class Node : public std::enable_shared_from_this<Node> {
 public:
  Node(Context& context, const Driver& driver);
  virtual ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Context& context() const { return context_; }
  const Driver& driver() const { return driver_; }
  // Virtual size in bytes.
  uint64_t length() const { return length_.load(std::memory_order_acquire); }
  const Limits& limits() const { return limits_; }
  bool read_only() const { return read_only_; }
  // The name under which the node was opened, as people know it: a path, an URI or `json:{…}`.
  const std::string& filename() const { return filename_; }
  const std::string& node_name() const { return node_name_; }
  const std::vector<Child>& children() const { return children_; }
  Node* child(std::string_view name) const;
  Node* file() const { return child("file"); }
  Node* backing() const { return backing_; }
  // What the node passes everything through to without a structure of its own; null for all but
  // filters and raw without offset.
  virtual Node* filtered() const { return nullptr; }

  // Reads OUT.size() bytes. Throws kInvalid when the range leaves the node.
  Task<void> read(uint64_t offset, MutableByteSpan out);
  // Writes all of IN. Throws kDenied when the node is read-only. A failed write leaves the range
  // undefined, nothing else.
  Task<void> write(uint64_t offset, ByteSpan in, WriteFlags flags = {});
  // As write() of zero bytes, without a buffer where the driver can.
  Task<void> write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags = {});
  // Stores exactly one cluster (the last one of the node may be short) compressed. IN is the plain
  // content. Throws kUnsupported where the format has no compression, kIo when the cluster already
  // has space of its own.
  Task<void> write_compressed(uint64_t offset, ByteSpan in);
  // The content of the range is no longer needed; a hint.
  Task<void> discard(uint64_t offset, uint64_t length);
  // The range will be read soon: whoever can keep copies nearer fetches them. Throws as reading.
  Task<void> prefetch(uint64_t offset, uint64_t length);
  // When it returns, every write that had returned before is on stable storage.
  Task<void> flush();
  // The state of the bytes from OFFSET on, at most MAX of them, as this layer knows it: not
  // allocated means that the layer below decides.
  Task<Extent> layer_extent_at(uint64_t offset, uint64_t max);
  // The same through the whole backing chain: depth tells which layer decided, host where the
  // bytes lie verbatim in a storage node. Zero areas inside data that the storage knows count too.
  Task<Extent> extent_at(uint64_t offset, uint64_t max);
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
  // Makes one of the node's length. A persistent one is stored when the node is closed. Throws with
  // QEMU's words: kExists, kInvalid for names and granularities, kUnsupported where the format
  // cannot keep it.
  DirtyBitmapPtr add_bitmap(const BitmapRequest& request);
  // The granularity of bitmaps for which none is asked: the cluster size, 4 to 64 KiB.
  uint64_t default_bitmap_granularity() const;

  // --- what tools ask of an opened node; the defaults say "nothing to tell" ---
  // Bytes that the node takes on its host, without the backing chain; nothing when unknown.
  virtual Task<std::optional<uint64_t>> allocated_bytes();
  // Members of "format-specific" → "data"; null when the driver has none. The type beside them.
  virtual Value specific_info() const { return {}; }
  virtual std::string_view specific_type() const;
  // The dirty flag of `info`; nothing when the driver does not answer the query.
  virtual std::optional<bool> dirty_flag() const { return false; }
  // Whether `info` tells limits().cluster_bytes, as QEMU does for most formats.
  virtual bool reports_cluster_bytes() const { return true; }
  virtual bool encrypted() const { return false; }
  // Encrypts what will be written as SOURCE, an unlocked node of the same format, is encrypted: the
  // keys and what unlocks them are the same. The image was just made and holds nothing.
  virtual Task<void> adopt_encryption(Node& source);
  // Name and format of the backing file as stored in the image; empty when there is none.
  virtual std::string backing_name() const { return {}; }
  virtual std::string backing_format() const { return {}; }
  virtual Value snapshots_info() const { return {}; }
  // Internal snapshots. Creating gives the disk as it is a name; applying makes the disk what it
  // was; deleting takes the first one of that NAME. WHICH is an ID or else a name. Throw
  // kUnsupported where the format has none, kNotFound.
  virtual Task<void> create_snapshot(std::string name);
  virtual Task<void> apply_snapshot(std::string which);
  virtual Task<void> delete_snapshot(std::string name);
  // From now on the read-only node shows the snapshot with this ID and this name; an empty one
  // counts for nothing.
  virtual Task<void> show_snapshot(std::string id, std::string name);
  // All of them, as the image lists them.
  virtual std::vector<SnapshotRecord> snapshots() const { return {}; }
  // From now on the read-only node is as it was at the snapshot with this place in snapshots(), its
  // length and the machine's state included; nothing: as it is now. No request may be under way.
  virtual Task<void> show_state(std::optional<size_t> which);
  // Adds RECORD to the list and gives it the disk as it is, and the machine's state that was
  // written, which leaves the disk by that. The length is the disk's. Throws as create_snapshot().
  virtual Task<void> record_snapshot(SnapshotRecord record);
  // Changes the name and format of the backing file in the image, and nothing else; an empty name
  // removes it. Throws kUnsupported where the format has none, kNoSpace when it does not fit.
  virtual Task<void> change_backing(std::string name, std::string format);
  // Makes every byte unallocated again, so that all are decided by the layer below. False where the
  // format cannot.
  virtual Task<bool> make_empty();
  // The same for whole units of limits().zero_alignment from OFFSET on. Says how many bytes were
  // done: 0 where it is not possible.
  virtual Task<uint64_t> unmap(uint64_t offset, uint64_t length);
  // True when a fresh image of this kind reads as zeroes without being written.
  virtual bool reads_zero_when_created() const { return false; }
  virtual bool supports_compression() const { return false; }
  // True when every cluster must be stored compressed, in one write.
  virtual bool compressed_only() const { return false; }
  // Whether the format keeps persistent dirty bitmaps.
  virtual bool supports_bitmaps() const { return false; }
  virtual Task<CheckResult> check(struct CheckRequest request);
  // Changes the format's options of an existing image (those of Driver::amend_options()). Throws
  // kUnsupported where the driver has none. The guest sees the same disk at every moment.
  virtual Task<void> amend(struct AmendRequest request);
  // Replaces the locks on the node's storage: what is new is taken before what is given up.
  virtual Task<void> set_permissions(Permissions permissions);
  // The area behind the disk in which a machine's state is kept: where it begins in the image (0:
  // there is none), and its bytes, counted from there. Throw kUnsupported where there is none.
  virtual uint64_t vm_state_offset() const { return 0; }
  virtual Task<void> read_vm_state(uint64_t offset, MutableByteSpan out);
  virtual Task<void> write_vm_state(uint64_t offset, ByteSpan in);
  // How many bytes of it from OFFSET on, at most MAX, were never written.
  virtual Task<uint64_t> vm_state_hole(uint64_t offset, uint64_t max);
  // Where faults are injected and requests stopped: the nearest fault filter at or below this node;
  // null without one.
  virtual DebugPort* debug_port() { return debug_port_; }
  // Compression is CPU work that a copy wants to do in parallel before the ordered write: encodes
  // one cluster; an empty result means "store it plain". Called on pool threads.
  virtual std::vector<std::byte> encode_cluster(ByteSpan plain) const;
  // How hard encode_cluster() and write_compressed() try from now on; not kept in the image. Before
  // the first of them. Throws kInvalid that names the range, kUnsupported.
  virtual void set_compression_level(uint64_t level);
  // Stores what encode_cluster() gave for the cluster at OFFSET. In the order of offsets the image
  // comes out packed in guest order.
  virtual Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain);
  // A copy stored all that it had, which may have been nothing.
  virtual Task<void> finish_encoded();

 protected:
  // --- what drivers do; ranges are inside the node and aligned to its Limits ---
  virtual Task<void> do_read(uint64_t offset, MutableByteSpan out) = 0;
  virtual Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags);
  // Throws kUnsupported when it cannot; the request layer then writes zero buffers.
  virtual Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags);
  virtual Task<void> do_discard(uint64_t offset, uint64_t length);
  // Unless a driver knows better the range is read, which fills what caches there are.
  virtual Task<void> do_prefetch(uint64_t offset, uint64_t length);
  virtual Task<void> do_flush();
  virtual Task<Extent> do_extent(uint64_t offset, uint64_t max);
  virtual Task<void> do_resize(ResizeRequest request);
  virtual Task<void> do_close();
  virtual Task<bool> do_copy_range_from(Node& source, uint64_t source_offset, uint64_t offset,
                                        uint64_t length);

  void set_length(uint64_t length) { length_.store(length, std::memory_order_release); }
  // Never lowers it: of several writers that move the end at once the farthest wins.
  void raise_length(uint64_t length) {
    uint64_t before = length_.load(std::memory_order_relaxed);
    while (before < length &&
           !length_.compare_exchange_weak(before, length, std::memory_order_release)) {
    }
  }
  Limits& mutable_limits() { return limits_; }
  // The name that people know, where the driver knows a better one than how it was opened.
  void set_filename(std::string name) { filename_ = std::move(name); }
  void set_read_only(bool read_only) { read_only_ = read_only; }
  void add_child(std::string name, NodePtr node, ChildRole role);
  // An unbounded node reads zeroes behind its end and grows when written there: what formats need
  // of their files. True for protocols unless they say otherwise.
  void set_unbounded(bool unbounded) { unbounded_ = unbounded; }
  // The fault filter below, told at points inside of a driver: null almost always.
  DebugPort* debug_below() const { return debug_port_; }
  // Throws when the image cannot keep a bitmap like this in addition to those it has.
  virtual void check_new_persistent_bitmap(const std::string& name, uint64_t granularity) const;
  // For drivers with requests of their own: the range was changed.
  void mark_dirty(uint64_t offset, uint64_t length) {
    if (!dirty_bitmaps_.empty()) dirty_bitmaps_.mark(offset, length);
  }
  // Below which request granularity write_zeroes is split into data and zero parts by the request
  // layer; formats do that themselves.
  virtual uint64_t zero_split() const { return limits_.zero_alignment; }

 private:
  friend class Opener;
  void check_range(uint64_t offset, uint64_t length) const;
  void check_writable();
  void guard_block_zero(uint64_t offset, ByteSpan in) const;
  Task<void> write_marking(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_inside(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_checked(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> write_zeroes_checked(uint64_t offset, uint64_t length, WriteFlags flags);
  Task<void> read_unaligned(uint64_t offset, MutableByteSpan out);
  Task<void> write_unaligned(uint64_t offset, ByteSpan in, WriteFlags flags);
  Task<void> tell_widening(bool head, bool tail, bool done);
  Task<void> write_zero_buffers(uint64_t offset, uint64_t length, WriteFlags flags);

  Context& context_;
  const Driver& driver_;
  std::atomic<uint64_t> length_{0};
  Limits limits_;
  bool read_only_ = true;
  bool no_flush_ = false;
  bool write_through_ = false;
  bool discard_unmap_ = false;  // discard=unmap: discards reach the driver
  enum class DetectZeroes : uint8_t { kOff, kOn, kUnmap } detect_zeroes_ = DetectZeroes::kOff;
  bool probed_raw_ = false;  // raw by guess: block 0 is protected
  bool unbounded_ = false;
  bool closed_ = false;
  std::atomic<bool> changed_{false};  // a request came that may leave metadata in memory
  const bool storage_;
  std::string filename_;
  std::string node_name_;
  std::vector<Child> children_;
  Node* backing_ = nullptr;
  DebugPort* debug_port_ = nullptr;
  DirtyBitmaps dirty_bitmaps_;
  RangeLock unaligned_;  // serialises widened writes with their neighbours
};

}  // namespace cairn
