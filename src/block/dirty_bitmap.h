#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "block/write_watch.h"

namespace cairn {

// Which parts of a disk were changed since the bitmap was made or cleared: one bit for every
// GRANULARITY bytes. All methods may be called from any thread.
//
// Memory: what is clean and what is dirty in one piece costs next to nothing; everything else takes
// a bit a granule, 512 MiB at most.
class DirtyBitmap {
 public:
  static constexpr uint64_t kMinGranularity = 512;
  static constexpr uint64_t kMaxGranularity = uint64_t{1} << 31;
  static constexpr uint64_t kMaxBytes = 512 << 20;  // of all bits

  enum class State {
    kUsable,
    kInconsistent,  // nobody knows what it missed; it has no content and can only be removed
  };

  // Clean, enabled. LENGTH is that of the disk in bytes. Throws kInvalid when the granularity is no
  // power of two in the range above, kTooLarge when there would be too many bits.
  DirtyBitmap(std::string name, uint64_t length, uint64_t granularity,
              State state = State::kUsable);

  const std::string& name() const { return name_; }
  uint64_t granularity() const { return uint64_t{1} << shift_; }
  uint64_t length() const;
  bool inconsistent() const { return state_ == State::kInconsistent; }

  // An enabled bitmap records the writes of its node.
  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  void set_enabled(bool enabled) { enabled_.store(enabled, std::memory_order_relaxed); }
  // A persistent one is kept in the image when the node is closed.
  bool persistent() const { return persistent_.load(std::memory_order_relaxed); }
  void set_persistent(bool persistent) { persistent_.store(persistent, std::memory_order_relaxed); }
  // Loaded from an image that is open read-only: users may read it.
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }
  void set_read_only(bool read_only) { read_only_.store(read_only, std::memory_order_relaxed); }
  // An export or a job has it: others may read it.
  bool busy() const { return busy_.load(std::memory_order_relaxed); }
  void set_busy(bool busy) { busy_.store(busy, std::memory_order_relaxed); }
  // Throws kInvalid, with QEMU's words, when the bitmap cannot be read, or not be changed.
  void check_readable() const;
  void check_changeable() const;
  // True when bits or the length were changed since set_unchanged().
  bool changed() const { return changed_.load(std::memory_order_relaxed); }
  void set_unchanged() { changed_.store(false, std::memory_order_relaxed); }

  // Marks, or cleans, every granule that the range touches; what is past the end is ignored.
  void mark(uint64_t offset, uint64_t length);
  void clean(uint64_t offset, uint64_t length);
  void clear();
  // Bytes of the granules that are dirty.
  uint64_t dirty_bytes() const;

  struct Run {
    uint64_t length = 0;  // bytes; 0 only at the end of the disk
    bool dirty = false;
  };
  // The longest run of one state from OFFSET on, at most MAX bytes of it.
  Run run_at(uint64_t offset, uint64_t max) const;

  // Marks what is dirty in SOURCE. A coarser source marks whole ranges, a finer one every granule
  // it touches. Throws kInvalid when the lengths differ.
  void merge(const DirtyBitmap& source);
  // Cuts the bitmap, or lengthens it by clean granules. Throws kTooLarge and changes nothing when
  // there would be too many bits.
  void resize(uint64_t length);

  // The bits as images and peers hold them: granule i is bit i % 8, least significant first, of
  // byte i / 8; the rest of the last byte is zero.
  static uint64_t serialized_bytes(uint64_t length, uint64_t granularity);
  uint64_t serialized_bytes() const { return serialized_bytes(length(), granularity()); }
  // Writes the bytes from FIRST on (a multiple of 8) into OUT, zeroes after the last one. False
  // when all are zero; OUT is not touched then.
  bool serialize(uint64_t first, MutableByteSpan out) const;
  // Marks what these bytes mark; bits past the end are ignored.
  void deserialize(uint64_t first, ByteSpan in);
  // As deserialize() of COUNT bytes of ones.
  void deserialize_ones(uint64_t first, uint64_t count);

 private:
  static constexpr uint64_t kChunkBits = 32768;
  static constexpr uint64_t kChunkWords = kChunkBits / 64;
  static constexpr uint64_t kChunkBytes = kChunkBits / 8;
  struct Words {
    uint64_t word[kChunkWords] = {};
  };
  // COUNT chunks that are all dirty, or one whose bits are in WORDS.
  struct Piece {
    uint64_t count = 1;
    std::unique_ptr<Words> words;
  };
  using Pieces = std::map<uint64_t, Piece>;  // by first chunk; chunks in between are clean

  // All below: mutex_ is held.
  Pieces::iterator piece_at(uint64_t chunk);
  Pieces::const_iterator piece_at(uint64_t chunk) const;
  Words& words_for_change(uint64_t chunk);
  void split(uint64_t chunk);
  void drop(uint64_t first_chunk, uint64_t end_chunk);
  void set_bits(uint64_t first, uint64_t end);
  void clear_bits(uint64_t first, uint64_t end);
  void run_bits(uint64_t first, uint64_t limit, uint64_t& end, bool& set) const;
  uint64_t bits() const;

  const std::string name_;
  const unsigned shift_;
  const State state_;
  std::atomic<bool> enabled_{true};
  std::atomic<bool> persistent_{false};
  std::atomic<bool> read_only_{false};
  std::atomic<bool> busy_{false};
  std::atomic<bool> changed_{false};
  mutable std::mutex mutex_;
  uint64_t length_;  // bytes
  Pieces pieces_;
};

using DirtyBitmapPtr = std::shared_ptr<DirtyBitmap>;

// What is needed to make a bitmap for a node.
struct BitmapRequest {
  std::string name;
  uint64_t granularity = 0;  // bytes; 0: the node's default
  bool persistent = false;
  bool enabled = true;
};

// The bitmaps of a node. The request layer marks what a request changed when the request has ended,
// whatever its outcome, and so in bitmaps that came while it was under way. Storage without any
// bitmap does not look again: a write under way when its first one comes may be missing there.
class DirtyBitmaps {
 public:
  // In the order in which they came.
  std::vector<DirtyBitmapPtr> list() const;
  // Null when there is none of that name.
  DirtyBitmapPtr find(std::string_view name) const;
  // Throws kNotFound instead.
  DirtyBitmapPtr get(std::string_view name) const;
  // True when requests need not say what they change.
  bool empty() const { return count_.load(std::memory_order_relaxed) == 0; }
  // Throws kExists when the name is taken. Those without a name are a job's own.
  void add(DirtyBitmapPtr bitmap);
  // Throws kNotFound, or kInvalid when somebody has it.
  void remove(std::string_view name);
  // Takes those of OTHER, the same disk as it was opened before, in the place of what was loaded
  // under their names: their users keep them.
  void adopt(const DirtyBitmaps& other);
  // Takes out one that was added, whatever its state.
  void forget(const DirtyBitmapPtr& bitmap);
  // Throws when a bitmap cannot follow its disk to this length.
  void check_resize(uint64_t length) const;

  // Calls FIRED once, with the number of bytes beyond, when a write has ended past OFFSET; 0 calls
  // nothing. From any thread, as FIRED is called on the worker of the write.
  using Fired = std::function<void(uint64_t excess)>;
  void set_threshold(uint64_t offset, Fired fired);
  // 0: there is none, or none any more.
  uint64_t threshold() const;

  // WATCH gets to know of each request that begins from now on; null: nobody does. One at a time.
  void set_watch(std::shared_ptr<WriteWatch> watch);
  // For the request layer: the one that was set, or null.
  std::shared_ptr<WriteWatch> watch() const;

  // For the request layer. mark_written() is mark() of what was no discard.
  void mark_written(uint64_t offset, uint64_t length);
  void mark(uint64_t offset, uint64_t length) const;
  void resize(uint64_t length) const;

 private:
  void recount();

  mutable std::shared_mutex mutex_;
  std::vector<DirtyBitmapPtr> bitmaps_;
  std::map<std::string_view, DirtyBitmapPtr> by_name_;  // names are the bitmaps' own
  uint64_t threshold_ = 0;
  Fired fired_;
  std::shared_ptr<WriteWatch> watch_;
  std::atomic<size_t> count_{0};  // of bitmaps, thresholds and watches
};

}  // namespace cairn
