#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "block/node.h"
#include "format/vhdx/layout.h"

namespace cairn::vhdx {

// A piece of the file that changes only through the log.
struct Page {
  alignas(8) std::array<std::byte, kSectorBytes> bytes{};
  uint64_t offset = 0;
  bool first = false;  // must be on disk before pages that are not: bitmaps before the table
  // Guarded by the cache.
  bool dirty = false;
  unsigned writers = 0;

  // The entry with this number in the page, read as a whole.
  uint64_t entry(size_t index) const {
    auto& word = reinterpret_cast<uint64_t&>(const_cast<std::byte&>(bytes[index * 8]));
    return std::atomic_ref<uint64_t>(word).load(std::memory_order_acquire);
  }
};
using PagePtr = std::shared_ptr<Page>;

// Bytes of the file.
struct Room {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// The cache of all metadata: bounded, thread-safe; pages stay in memory while they are changed.
class Pages {
 public:
  explicit Pages(Node& file) : file_(file) {}

  // The page at OFFSET if it is in memory.
  PagePtr try_get(uint64_t offset);
  Task<PagePtr> get(uint64_t offset, bool first = false);

  // Everything that WORK changes gets to the disk in one step, apart from pages that must come
  // first. WORK calls the functions below and nothing that waits.
  template <class Work>
  void change(Work&& work) {
    std::lock_guard lock(mutex_);
    work();
  }
  void set_entry(const PagePtr& page, size_t index, uint64_t value);
  void set_bytes(const PagePtr& page, size_t at, ByteSpan bytes);
  // What nothing refers to any more once the change is on disk.
  void release(Room room) { released_.push_back(room); }

  struct Snapshot {
    PagePtr page;
    std::array<std::byte, kSectorBytes> bytes;
  };
  struct Batch {
    std::vector<Snapshot> pages;  // in the order in which they must get to the disk
    std::vector<Room> released;
  };
  // All changes up to now; the pages count as clean, and stay until done().
  Batch take();
  // The batch is on disk; or else, with FAILED, all of it is still to be written.
  void done(const Batch& batch, bool failed);
  size_t dirty() const { return dirty_.load(std::memory_order_relaxed); }
  bool changed() const;
  // Forgets clean pages in the range.
  void forget(uint64_t offset, uint64_t bytes);

 private:
  void mark(const PagePtr& page);
  void make_room();

  Node& file_;
  mutable std::mutex mutex_;
  Mutex loading_;
  std::unordered_map<uint64_t, PagePtr> pages_;
  std::vector<PagePtr> changed_;
  std::vector<Room> released_;
  std::atomic<size_t> dirty_{0};
};

}  // namespace cairn::vhdx
