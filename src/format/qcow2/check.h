#pragma once

#include <atomic>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "block/capabilities/checkable.h"
#include "block/driver.h"
#include "format/qcow2/node.h"
#include "format/qcow2/repair_journal.h"
#include "platform/format.h"

namespace cairn {

// Zeroes that take memory only where they are changed: a sparse file may be very long.
template <class T>
class ZeroedArray {
 public:
  explicit ZeroedArray(size_t size) { reset(size); }
  ZeroedArray(const ZeroedArray&) = delete;
  ~ZeroedArray() { std::free(data_); }
  T& operator[](size_t index) { return data_[index]; }
  T operator[](size_t index) const { return data_[index]; }
  size_t size() const { return size_; }
  ByteSpan bytes(size_t begin, size_t count) const {
    return std::as_bytes(std::span(data_ + begin, count));
  }
  void reset(size_t size) {
    std::free(data_);
    data_ = static_cast<T*>(std::calloc(size + 1, sizeof(T)));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = size;
  }
  // Keeps what is there.
  void grow(size_t size) {
    if (size <= size_) return;
    auto* larger = static_cast<T*>(std::realloc(data_, (size + 1) * sizeof(T)));
    if (larger == nullptr) throw std::bad_alloc();
    std::memset(larger + size_, 0, (size + 1 - size_) * sizeof(T));
    data_ = larger;
    size_ = size;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// What one stretch of an L1 table has shown. Stretches are walked at once and reported in order.
struct Findings {
  // An L2 entry that is replaced.
  struct Fix {
    uint64_t place = 0;
    uint64_t word = 0;
    uint64_t bitmap = 0;
  };
  std::vector<std::string> lines;
  std::vector<Fix> fixes;
  uint64_t corruptions = 0;
  uint64_t allocated = 0, compressed = 0, fragmented = 0;

  // Adds a line, unless there are very many.
  void keep(const char* format, va_list arguments);
  // The same, and with corruption() counts it.
  CAIRN_PRINTF(2, 3) void line(const char* format, ...);
  CAIRN_PRINTF(2, 3) void corruption(const char* format, ...);
};

// Counts every reference again, compares with what the image says, and repairs what differs.
//
// The counts take a byte a cluster of the file and two bits for what the image says. A repair
// writes through a RepairJournal, so that one that was interrupted is undone by the next. The
// order, the lines and the numbers are those of qemu-img; docs/formats/qcow2.md says where not.
class Qcow2Checker {
 public:
  Qcow2Checker(Qcow2Node& node, const CheckRequest& request);
  // Throws what kept it from being completed.
  Task<CheckResult> run();

 private:
  using Repair = CheckRequest::Repair;
  // Tables that a sound image has are each walked once a snapshot at most; a hostile one could name
  // the same table a million times.
  static constexpr uint64_t kMinWalks = 1 << 16;
  static constexpr uint64_t kStretch = 128;  // L1 entries
  // QEMU's limit as well.
  static constexpr uint64_t kMaxHostClusters = INT32_MAX;

  // What the workers on one L1 table share.
  struct L1Walk {
    uint64_t offset = 0;
    uint64_t entries = 0;
    bool active = false;
    std::atomic<uint64_t> next = 0;  // stretch
    InOrder order = {};
  };
  // What a repair would have to do: the dry run's plan.
  struct Plan {
    uint64_t raised = 0, lowered = 0, copied = 0, entries = 0;
  };

  static unsigned long long ull(uint64_t value) { return value; }
  bool fixes_all() const { return request_.repair == Repair::kAll; }
  bool fixes_leaks() const { return request_.repair != Repair::kNone; }

  // check.cc
  Task<CheckResult> examine();
  Task<void> count_all();
  void start_counts();
  void tell(Findings& findings);
  void count(uint64_t offset, uint64_t length, Findings& findings);
  void overflow(uint64_t cluster, Findings& findings);
  uint64_t counted(uint64_t index) const;
  Task<void> read_table();
  Task<void> load_refcounts();
  bool readable_block(uint64_t index) const;
  // Where the image keeps the counters from INDEX * refcounts per block on; 0: nowhere.
  uint64_t block_place(uint64_t index) const;
  bool says_one(uint64_t cluster) const;
  Task<void> walk_bitmaps();
  Task<void> count_blocks();
  Task<bool> include_block(uint64_t index, uint64_t offset);
  Task<void> compare(Repair repair);
  void compare_cluster(uint64_t index, uint64_t is, bool readable, Repair repair,
                       MutableByteSpan block, uint64_t at);
  bool drop_past_end(uint64_t begin, MutableByteSpan block, Repair repair);
  std::string unaligned_block(uint64_t cluster) const;
  void write_plan();

  // check_walk.cc
  Task<void> walk_snapshot(const qcow2::SnapshotEntry& snapshot);
  Task<void> walk_l1(uint64_t offset, uint64_t entries, bool active);
  Task<void> walk_stretches(L1Walk& walk);
  Task<void> tell_in_turn(Findings& findings);
  Task<void> walk_entry(L1Walk& walk, uint64_t entry, MutableByteSpan l2, Findings& findings);
  void walk_l2(ByteSpan table, uint64_t place, bool active, Findings& findings);
  void data_file_has(uint64_t host, Findings& findings);
  void compressed(uint64_t entry, uint64_t bitmap, uint64_t index, bool active, Findings& findings);

  // check_copied.cc
  Task<void> check_copied();
  Task<void> copied_of_table(uint64_t place, MutableByteSpan table, bool repair);
  Task<std::optional<uint64_t>> says(uint64_t cluster);

  // check_snapshots.cc
  Task<void> read_snapshots();
  Task<void> fix_snapshots();

  // repair.cc
  Task<void> write(uint64_t offset, ByteSpan bytes);
  Task<void> commit();
  Task<void> rebuild();
  uint64_t take_free(uint64_t first, uint64_t clusters);
  Task<void> write_blocks(const std::vector<uint64_t>& blocks);
  Task<void> finish();
  Task<void> fix_version();

  Qcow2Node& node_;
  const CheckRequest& request_;
  const qcow2::Header& header_;
  uint64_t cluster_;
  uint64_t file_bytes_;
  uint64_t most_;  // the largest counter
  CheckResult result_;
  Findings told_;  // outside of the L1 walks
  ZeroedArray<uint8_t> counts_;
  std::atomic<uint64_t> walks_left_{0};  // L2 tables, or clusters of L1 tables
  std::atomic<bool> gave_up_{false};
  std::atomic<uint64_t> l1_walked_{0};  // entries
  uint64_t l1_total_ = 0;
  std::mutex more_mutex_;
  std::unordered_map<uint64_t, uint64_t> more_;
  ZeroedArray<uint64_t> is_one_;  // a bit per cluster whose stored refcount is one
  AlignedBuffer said_;            // the refcount block that was asked last
  uint64_t said_block_ = 0;
  std::vector<uint64_t> table_;                      // the refcount table as it is in the file
  std::atomic<uint64_t> overflow_told_{UINT64_MAX};  // a cluster
  std::atomic<bool> copied_differs_{false};
  std::atomic<uint64_t> old_zeroes_{0};  // zero flags in an image of version 2
  bool must_rebuild_ = false;
  bool warned_unaligned_ = false;
  uint64_t past_end_ = 0;  // counters of clusters past the end of the file
  bool drops_past_end_ = false;
  bool marked_ = false;  // the repair has begun to write
  std::vector<qcow2::SnapshotEntry> snapshots_;
  uint64_t snapshot_bytes_ = 0;
  uint64_t snapshots_incomplete_ = 0;
  uint64_t snapshots_dropped_ = 0;
  uint64_t snapshots_wrong_ = 0;  // both
  Plan plan_;
  std::unique_ptr<RepairJournal> journal_;
};

}  // namespace cairn
