#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "base/bytes.h"
#include "block/format_node.h"

namespace cairn {

// A bounded, thread-safe, write-back cache of equally large blocks of metadata of one child, which
// all formats use for their tables.
//
// A block that somebody holds (Ref) stays. Changing a block's bytes is the caller's business: under
// its own lock and with mark_dirty() afterwards. Blocks reach the disk in flush(), on eviction and
// when another cache needs them to.
class TableCache {
 public:
  struct Block;
  class Ref {
   public:
    Ref() = default;
    Ref(Ref&& other) noexcept;
    Ref& operator=(Ref&& other) noexcept;
    ~Ref();
    explicit operator bool() const { return block_ != nullptr; }
    // The block's bytes. Readers that hold no lock of the owner load entries with load_entry().
    MutableByteSpan bytes() const;
    uint64_t offset() const;
    // The 8-byte big-endian entry INDEX, read and written as a whole.
    uint64_t load_entry(size_t index) const;
    void store_entry(size_t index, uint64_t value) const;

   private:
    friend class TableCache;
    explicit Ref(Block* block) : block_(block) {}
    Block* block_ = nullptr;
  };

  // The cache NAME of OWNER, as numbers for operators call it. Blocks of BLOCK_BYTES in FILE, at
  // most MAX_BLOCKS of them (at least 2) besides those held. What is read is a table of OWNER, up
  // to END: see FormatNode::read_table() for a file that was cut off. OWNER null: bytes past the
  // end of the file are zero.
  TableCache(FormatNode* owner, Node& file, std::string name, uint32_t block_bytes,
             size_t max_blocks, uint64_t end = UINT64_MAX);
  // From now on blocks that nobody used for one to two INTERVALs leave memory, changed ones when
  // they have been written. The cache has no clock of its own: it looks when it is used, and when
  // clean() is called. 0: never.
  void set_clean_interval(std::chrono::seconds interval);
  void clean();
  // Blocks in memory.
  size_t size() const;
  ~TableCache();

  // Called once, on some worker, when the first block comes in. Before the cache is used.
  void set_on_first_block(std::function<void()> call);
  uint32_t block_bytes() const { return block_bytes_; }

  // The block at OFFSET, read when it is not there.
  Task<Ref> get(uint64_t offset);
  // The same when it needs no I/O; otherwise an empty Ref. Never suspends.
  Ref try_get(uint64_t offset);
  // A block that is about to be filled for the first time: zeroed, dirty, not read.
  Task<Ref> get_new(uint64_t offset);

  void mark_dirty(const Ref& ref);
  // Forgets the blocks in the range, written or not: their space was freed.
  void forget(uint64_t offset, uint64_t length);

  // From now on no block of this cache is written before all dirty blocks of OTHER have been
  // written and the file was flushed. Ends a dependency of OTHER on this one by carrying it out,
  // which costs a flush: a format that frees space does better to keep what it frees in a list
  // until its tables are on disk.
  Task<void> write_after(TableCache& other);
  // No block of this cache is written before the file was flushed once more: data that the tables
  // point to must get there first.
  void write_after_file_flush();
  // Runs before blocks are written, under the cache's write lock; formats set dirty bits here.
  void set_before_write(std::function<Task<void>()> hook) { before_write_ = std::move(hook); }

  // Writes all dirty blocks, in the order that was asked for, and waits for those that others are
  // writing. Does not flush the file.
  Task<void> write_back();
  // The same, and flushes it.
  Task<void> flush();
  bool dirty() const;

 private:
  struct Group;
  struct State;
  struct Turn;
  // With the mutex of state_ held: the block at OFFSET, a new one where there is none; and a
  // reference to BLOCK, which counts as a use of it.
  Block* place_for(uint64_t offset);
  Ref hold(Block* block);
  Task<void> load(Block* block);
  void clean_if_due();
  Task<void> make_room();
  Task<void> take_turn(Turn& turn);
  Task<void> write_back_locked();
  Task<void> honour_dependencies_locked();

  FormatNode* owner_;
  Node& file_;
  const CacheCountsPtr counts_;  // written under the mutex of state_
  uint32_t block_bytes_;
  size_t max_blocks_;
  uint64_t end_;
  std::unique_ptr<State> state_;
  std::function<Task<void>()> before_write_;
};

}  // namespace cairn
