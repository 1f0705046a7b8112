#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "block/capabilities/cache_reporter.h"
#include "block/capabilities/range_copier.h"
#include "block/node.h"

namespace cairn {

class SectorCipher;

// Where a guest range is, from the offset that was asked on.
struct Mapping {
  enum class Kind : uint8_t {
    kChild,    // verbatim at host_offset of host
    kZero,     // zeroes, decided by this layer
    kBelow,    // the layer below decides; zeroes when there is none
    kEncoded,  // the driver decodes it: read_encoded()
  };
  Kind kind = Kind::kBelow;
  bool compressed = false;
  uint64_t length = 0;  // never 0
  Node* host = nullptr;
  uint64_t host_offset = 0;  // also set for kZero with space reserved, when HOST is set
  uint64_t token = 0;        // the driver's own, for read_encoded()

  static Mapping zeroes(uint64_t length) { return {.kind = Kind::kZero, .length = length}; }
  static Mapping stored(uint64_t length, Node* host, uint64_t host_offset) {
    return {.kind = Kind::kChild, .length = length, .host = host, .host_offset = host_offset};
  }
};

// Room for a write. Guest bytes [offset, offset + length) go to host_offset of host. The request
// layer fills the copy-up ranges [copy_begin, offset) and [offset + length, copy_end) with what the
// guest saw before: they are around the payload in the host as well.
struct Grant {
  uint64_t offset = 0;
  uint64_t length = 0;
  Node* host = nullptr;
  uint64_t host_offset = 0;
  uint64_t copy_begin = 0;  // = offset when nothing is to be copied before
  uint64_t copy_end = 0;    // = offset + length when nothing is to be copied after
  // True: the write is in place, nothing to publish, no exclusive lock needed.
  bool in_place = true;
  // True: the host area was never written and reads as zeroes; copy-up of zeroes is not written.
  bool host_is_zero = false;
  uint64_t token[4] = {};  // the driver's own, for publish() and abandon()
};

// A format: gives bytes a structure by mapping, and moves none itself. The base class is the data
// path: it locks ranges, splits, copies up, writes data and then publishes, so that a table never
// points to data that was not written. Drivers keep the order of their own metadata.
//
// Payload may be encrypted: the driver gives its cipher once, and from then on everything that is
// kChild is decrypted when it is read and encrypted when it is written, copied-up parts included.
// Tables and encoded clusters stay the driver's business.
//
// Locking: reads and in-place writes hold their clusters shared, everything that changes a mapping
// holds them exclusive, so a driver may free what it unmaps at once.
class FormatNode : public Node, public RangeCopier, public CacheReporter {
 public:
  // An image in FILE, which becomes the child "file".
  FormatNode(Context& context, const Driver& driver, NodePtr file);

  Task<bool> copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                        uint64_t length) final;

  std::vector<CacheCountsPtr> cache_counts() const final {
    std::lock_guard lock(caches_mutex_);
    return caches_;
  }
  // A cache of the node, which it may outlive, counts there from now on. From any thread.
  void add_cache(CacheCountsPtr counts) {
    std::lock_guard lock(caches_mutex_);
    caches_.push_back(std::move(counts));
  }

  // Reads a part of a table at HOST_OFFSET of HOST, of which the file must have the first NEEDED
  // bytes: otherwise it was cut off, and what happens is as MissingTables says.
  Task<void> read_table(Node& host, uint64_t host_offset, MutableByteSpan out,
                        uint64_t needed = UINT64_MAX);

 protected:
  // What every format has, and OWN, the interfaces of one.
  template <class... Own>
  using FormatCapabilities = CapabilityList<RangeCopier, CacheReporter, Own...>;
  void* find_capability(CapabilityId id) override { return FormatCapabilities<>::find(this, id); }

  // What becomes of tables that the file does not reach; missing entries are zero.
  enum class MissingTables : uint8_t {
    kRefuse,  // as the Profile's past_end says: kCorrupt, or a warning
    kWarn,    // a warning, once an image: opening what is to be salvaged
    kIgnore,  // the reader looks by itself: `check`
  };
  // As the FLAGS of the opening that begins say, the image is read-only, and tables may be missing.
  void begin_opening(const struct OpenFlags& flags);
  // It is open: from now on, what is to be salvaged is refused piece by piece.
  void end_opening() {
    if (missing_tables_ == MissingTables::kWarn) missing_tables_ = MissingTables::kRefuse;
  }

  // The first COUNT bytes of the file: where the header is.
  Task<std::vector<std::byte>> first_bytes(size_t count);

  // Whether the file may lack data that the tables point to, as far as that is cheap to know: then
  // the first allocation looks at all of them.
  virtual bool may_be_cut() const { return false; }
  // Throws kCorrupt when the file lacks any of the data: new clusters would make it longer, and
  // what is missing zeroes.
  Task<void> refuse_cut();
  // The same as map(), for looking at the whole image.
  virtual Task<Mapping> survey(uint64_t offset, uint64_t length) { return map(offset, length); }
  // Maps from OFFSET on, at most LENGTH bytes (at least one).
  virtual Task<Mapping> map(uint64_t offset, uint64_t length) = 0;
  // Decodes OUT.size() bytes at OFFSET out of a kEncoded mapping that covers them.
  virtual Task<void> read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out);

  // Makes room for a write of LENGTH bytes at OFFSET; may grant fewer. With EXCLUSIVE false only an
  // in-place grant may be given; when that is impossible the result has length 0 and the caller
  // asks again under the exclusive lock.
  virtual Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive);
  // The data is written: point the tables to it.
  virtual Task<void> publish(Grant grant);
  // The data was not written: give the room back. Does not throw.
  virtual Task<void> abandon(Grant grant);

  // The disk is mapped, zeroed and discarded in units of BYTES. Before the first request.
  void set_unit(uint64_t bytes);
  // The disk will end at LENGTH: what the unit there holds after it becomes zeroes, which must not
  // show up when the disk grows again.
  Task<void> zero_unit_after(uint64_t length);

  // Takes the space of the unit at OFFSET away, which reads as zeroes from then on. False: not
  // possible here.
  virtual Task<bool> unmap_unit(uint64_t offset);
  // Makes whole units of limits().zero_alignment read as zeroes by metadata alone. Gives how many
  // bytes from OFFSET on were done; 0: not possible here, data will be written instead. Without an
  // override: what is mapped as zeroes already, and what unmap_unit() does.
  virtual Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap);
  // False: it is a way to save space at best, and nobody who will have no other may rely on it.
  virtual bool has_zero_marks() const { return true; }
  // Unmaps whole units of limits().discard_alignment. Without an override, by unmap_unit().
  virtual Task<void> discard_mapped(uint64_t offset, uint64_t length);
  // CompressedWriter::write_encoded() of formats that have it.
  Task<void> write_encoded_cluster(uint64_t offset, ByteSpan encoded, ByteSpan plain);
  // Stores one encoded cluster; the range is exclusively locked.
  virtual Task<void> store_encoded(uint64_t offset, ByteSpan encoded);
  // Writes all metadata and what it needs, in order, and flushes the children.
  virtual Task<void> flush_mapped();

  Task<void> do_read(uint64_t offset, MutableByteSpan out) final;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) final;
  Task<void> do_discard(uint64_t offset, uint64_t length) final;
  Task<void> do_flush() final;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

  // True when clusters that are mapped may still be holes in the file (preallocated metadata): the
  // state of data is then asked of the file as well.
  virtual bool data_may_be_sparse() const { return false; }

  // Part of the disk that is stored in one piece.
  struct Unit {
    uint64_t begin = 0;
    uint64_t bytes = 0;
  };
  // The unit at OFFSET, where the host may end inside of the last one that is stored in it: the
  // rest of that one reads as zeroes. Everything else that is mapped past the end of its host is
  // corrupt.
  virtual std::optional<Unit> short_unit(uint64_t) const { return std::nullopt; }
  // By what is known of the length; others may have made the file longer since.
  static bool reaches_past_end(const Node& host, uint64_t host_offset, uint64_t length) {
    const uint64_t end = host.length();
    return length > end || host_offset > end - length;
  }
  // How many of the LENGTH bytes at HOST_OFFSET of HOST, which hold the disk from OFFSET on, the
  // host has. None: as the Profile's past_end says, throws kCorrupt, or warns once and gives all,
  // which read as zeroes.
  Task<uint64_t> stored_bytes(Node* host, uint64_t host_offset, uint64_t offset, uint64_t length);

  // What chooses the IV of a piece of payload: its place in the guest or in the host.
  enum class CipherOffset : uint8_t { kGuest, kHost };
  // Payload is encrypted with CIPHER. Before the first request; requests are aligned to its sectors
  // from then on.
  void set_payload_cipher(std::shared_ptr<const SectorCipher> cipher, CipherOffset by);
  // The same as that of OTHER, which has one.
  void share_payload_cipher(const FormatNode& other) {
    set_payload_cipher(other.cipher_, other.cipher_offset_);
  }
  // Writes IN, the guest's bytes at OFFSET, to HOST, encrypted where payload is.
  Task<void> write_payload(Node& host, uint64_t host_offset, uint64_t offset, ByteSpan in);

  // For drivers that change mappings outside of requests (resize, snapshots): lock everything.
  RangeLock& ranges() { return ranges_; }
  // What the guest sees in the range, for copy-up by drivers themselves.
  Task<void> read_guest(uint64_t offset, MutableByteSpan out);

  Node* file_ = nullptr;  // the child "file"

 private:
  Task<void> lock_clusters(RangeLock::Guard& guard, uint64_t offset, uint64_t length,
                           bool exclusive);
  Task<void> refuse_cut_once();
  Task<void> missing_table(Node* host, uint64_t host_offset, uint64_t needed);
  void warn_cut(const std::string& text);
  Task<void> write_locked(uint64_t offset, ByteSpan in);
  Task<void> write_zeroes_locked(uint64_t offset, uint64_t length);
  Task<void> zero_part(uint64_t offset, uint64_t length, WriteFlags flags);
  Task<void> write_in_place(Grant place, uint64_t offset, ByteSpan in);
  Task<void> write_granted(const Grant& grant, ByteSpan in);
  Task<void> fill_host(Grant place);
  Task<bool> copy_granted(const Grant& grant, Node& source, uint64_t source_offset);
  Task<bool> guest_reads_zero(uint64_t begin, uint64_t end);
  Task<void> read_below(uint64_t offset, MutableByteSpan out);
  Task<void> write_encrypted(Node& host, uint64_t host_offset, uint64_t offset, ByteSpan in);
  Task<void> decrypt(uint64_t host_offset, uint64_t offset, MutableByteSpan bytes);
  RangeLock ranges_;
  MissingTables missing_tables_ = MissingTables::kRefuse;
  std::atomic<bool> warned_cut_{false};
  std::atomic<bool> known_whole_{false};
  std::shared_ptr<const SectorCipher> cipher_;  // null: payload is plain
  CipherOffset cipher_offset_ = CipherOffset::kGuest;
  mutable std::mutex caches_mutex_;  // of what follows
  std::vector<CacheCountsPtr> caches_;
};

// A format whose images have the capabilities OWN, interfaces that its class implements.
template <class... Own>
class FormatOf : public FormatNode, public Own... {
 public:
  using Capabilities = FormatCapabilities<Own...>;
  using FormatNode::FormatNode;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
};

}  // namespace cairn
