#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/driver.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Zeroes that take memory only where they are changed: a sparse file may be very long.
template <class T>
class ZeroedArray {
 public:
  explicit ZeroedArray(size_t size)
      : data_(static_cast<T*>(std::calloc(size + 1, sizeof(T)))), size_(size) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ZeroedArray(const ZeroedArray&) = delete;
  ~ZeroedArray() { std::free(data_); }
  T& operator[](size_t index) { return data_[index]; }
  T operator[](size_t index) const { return data_[index]; }
  size_t size() const { return size_; }
  ByteSpan bytes(size_t begin, size_t count) const {
    return std::as_bytes(std::span(data_ + begin, count));
  }

 private:
  T* data_;
  size_t size_;
};

// What one stretch of an L1 table had to tell. Stretches are walked side by side and told in order.
struct Findings {
  std::vector<std::string> lines;
  uint64_t corruptions = 0;
  uint64_t allocated = 0, compressed = 0, fragmented = 0;
  uint64_t first_host = 0;  // of the first plain cluster; 0: there was none
  uint64_t next_host = 0;   // where the cluster behind the last plain one would lie

  __attribute__((format(printf, 2, 3))) void corruption(const char* format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    lines.emplace_back(text);
    ++corruptions;
  }
};

// Counts every reference anew and compares with what the image says.
class Qcow2Checker {
 public:
  Qcow2Checker(Qcow2Node& node, const CheckRequest& request)
      : node_(node),
        request_(request),
        header_(node.header_),
        cluster_(header_.cluster_bytes()),
        file_bytes_(node.file_->length()),
        counts_(div_ceil(file_bytes_, cluster_)),
        walks_left_(4 * counts_.size() + kMinWalks),
        is_one_(div_ceil(counts_.size(), 64)),
        is_more_(is_one_.size()) {}

  Task<CheckResult> run() {
    result_.total_clusters = div_ceil(header_.size, cluster_);
    co_await load_refcounts();
    count(0, cluster_, told_);
    co_await walk_l1(header_.l1_offset, node_.l1_count_, true);
    for (const SnapshotEntry& snapshot : node_.snapshots_) co_await walk_snapshot(snapshot);
    if (header_.snapshot_count != 0) count(header_.snapshots_offset, snapshot_table_bytes(), told_);
    count(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} * cluster_,
          told_);
    if (const auto& crypto = node_.extensions_.crypto) count(crypto->first, crypto->second, told_);
    co_await walk_bitmaps();
    count_blocks();
    tell(told_);
    co_await compare();
    co_return result_;
  }

 private:
  // Tables that a sound image has are each walked once a snapshot at most; a hostile one could name
  // the same table a million times.
  static constexpr uint64_t kMinWalks = 1 << 16;
  static constexpr uint64_t kStretch = 128;  // L1 entries
  // Counters above one that are kept for the messages about COPIED flags.
  static constexpr size_t kKeptCounts = 1 << 16;

  static unsigned long long ull(uint64_t value) { return value; }

  void tell(Findings& findings) {
    for (const std::string& line : findings.lines)
      if (request_.report) request_.report(line);
    result_.corruptions += findings.corruptions;
    result_.allocated_clusters += findings.allocated;
    result_.compressed_clusters += findings.compressed;
    result_.fragmented_clusters += findings.fragmented;
    findings = {};
  }

  // One byte a cluster; the few that are referenced more often count on in a map.
  void count(uint64_t offset, uint64_t length, Findings& findings) {
    if (length == 0) return;
    const auto end = checked_add(offset, length);
    if (!end || div_ceil(*end, cluster_) > counts_.size()) {
      findings.corruption(
          "ERROR: counting reference for region exceeding the end of the file by one cluster or "
          "more: offset 0x%llx size 0x%llx",
          ull(offset), ull(length));
      return;
    }
    for (uint64_t c = offset / cluster_; c < div_ceil(*end, cluster_); ++c) {
      std::atomic_ref<uint8_t> counter(counts_[c]);
      uint8_t now = counter.load(std::memory_order_relaxed);
      while (now != UINT8_MAX && !counter.compare_exchange_weak(now, static_cast<uint8_t>(now + 1),
                                                                std::memory_order_relaxed)) {
      }
      if (now != UINT8_MAX) continue;
      const std::lock_guard lock(more_mutex_);
      ++more_[c];
    }
  }
  uint64_t counted(uint64_t index) const {
    if (index >= counts_.size()) return 0;
    const auto found = counts_[index] == UINT8_MAX ? more_.find(index) : more_.end();
    return counts_[index] + (found == more_.end() ? 0 : found->second);
  }

  Task<void> load_refcounts() {
    AlignedBuffer block(cluster_);
    const uint64_t per_block = header_.refcounts_per_block();
    for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
      const uint64_t offset = node_.refcount_table_[i];
      if (offset == 0 || !is_aligned(offset, cluster_) || offset >= file_bytes_) continue;
      if (i * per_block >= counts_.size()) break;
      co_await node_.file_->read(offset, block.span());
      for (uint64_t c = 0; c < per_block && i * per_block + c < counts_.size(); ++c) {
        const uint64_t stored = get_refcount(block.span(), c, header_.refcount_order);
        const uint64_t index = i * per_block + c;
        if (stored == 1) is_one_[index / 64] |= uint64_t{1} << index % 64;
        if (stored > 1) is_more_[index / 64] |= uint64_t{1} << index % 64;
        if (stored > 1 && stored_more_.size() < kKeptCounts) stored_more_[index] = stored;
      }
    }
  }
  // The counter of the image; above one it is exact for the first kKeptCounts only.
  uint64_t stored(uint64_t index) const {
    if (index >= counts_.size()) return 0;
    if (is_one_[index / 64] >> index % 64 & 1) return 1;
    if ((is_more_[index / 64] >> index % 64 & 1) == 0) return 0;
    const auto found = stored_more_.find(index);
    return found == stored_more_.end() ? 2 : found->second;
  }

  Task<void> walk_snapshot(const SnapshotEntry& snapshot) {
    const auto end = checked_add(snapshot.l1_offset, uint64_t{snapshot.l1_entries} * 8);
    if (!is_aligned(snapshot.l1_offset, cluster_)) {
      told_.corruption(
          "ERROR snapshot %s (%s) l1_offset=%#llx: L1 table is not cluster aligned; snapshot table "
          "entry corrupted",
          snapshot.id.c_str(), snapshot.name.c_str(), ull(snapshot.l1_offset));
    } else if (!end || uint64_t{snapshot.l1_entries} * 8 > kMaxL1Bytes) {
      told_.corruption(
          "ERROR snapshot %s (%s) l1_size=%#x: L1 table is too large; snapshot table entry "
          "corrupted",
          snapshot.id.c_str(), snapshot.name.c_str(), snapshot.l1_entries);
    } else {
      co_await walk_l1(snapshot.l1_offset, snapshot.l1_entries, false);
    }
  }

  Task<void> walk_l1(uint64_t offset, uint64_t entries, bool active) {
    if (entries == 0) co_return;
    count(offset, entries * 8, told_);
    const uint64_t clusters = div_ceil(entries * 8, cluster_);
    if (clusters > walks_left_) {
      if (walks_left_ != 0) ++result_.check_errors;
      walks_left_ = 0;
      co_return;
    }
    walks_left_ -= clusters;
    tell(told_);
    L1Walk walk{.offset = offset, .entries = entries, .active = active};
    Runtime& runtime = node_.context().runtime();
    const auto workers = static_cast<unsigned>(
        std::min<uint64_t>(runtime.worker_count(), div_ceil(entries, kStretch)));
    TaskGroup group;
    for (unsigned i = 0; i < workers; ++i) group.spawn_on(runtime.worker(i), walk_stretches(walk));
    co_await group.join();
  }

  // What the workers on one L1 table share.
  struct L1Walk {
    uint64_t offset = 0;
    uint64_t entries = 0;
    bool active = false;
    std::atomic<uint64_t> next = 0;  // stretch
    InOrder order = {};
    uint64_t next_host = 0;  // behind the last plain cluster so far; in turn
  };

  Task<void> walk_stretches(L1Walk& walk) {
    co_await yield_now();
    AlignedBuffer l2(cluster_);
    AlignedBuffer l1(kStretch * 8);
    Findings findings;
    std::exception_ptr error;
    while (true) {
      const uint64_t stretch = walk.next.fetch_add(1);
      if (stretch * kStretch >= walk.entries) break;
      const uint64_t first = stretch * kStretch;
      const uint64_t some = error ? 0 : std::min(walk.entries - first, kStretch);
      try {
        co_await node_.file_->read(walk.offset + first * 8, l1.span().first(some * 8));
        for (uint64_t i = 0; i < some; ++i) {
          const uint64_t entry = load_be<uint64_t>(l1.span(), i * 8);
          if (entry != 0) co_await walk_entry(walk, first + i, entry, l2.span(), findings);
        }
      } catch (...) {
        error = std::current_exception();
      }
      co_await walk.order.run(stretch, tell_in_turn(walk, findings));
    }
    if (error) std::rethrow_exception(error);
  }

  Task<void> tell_in_turn(L1Walk& walk, Findings& findings) {
    if (findings.first_host != 0) {
      if (walk.next_host != 0 && walk.next_host != findings.first_host) ++findings.fragmented;
      walk.next_host = findings.next_host;
    }
    tell(findings);
    co_return;
  }

  Task<void> walk_entry(L1Walk& walk, uint64_t index, uint64_t entry, MutableByteSpan l2,
                        Findings& findings) {
    const uint64_t place = entry & kOffsetMask;
    if (entry & ~(kOffsetMask | kCopied))
      findings.corruption("ERROR found L1 entry with reserved bits set: %llx", ull(entry));
    count(place, cluster_, findings);
    if (!is_aligned(place, cluster_)) {
      findings.corruption("ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry corrupted",
                          ull(place));
      co_return;
    }
    if (walk.active && stored(place / cluster_) != 0 &&
        (stored(place / cluster_) == 1) != ((entry & kCopied) != 0))
      findings.corruption(
          "ERROR OFLAG_COPIED L2 cluster: l1_index=%llu l1_entry=%llx refcount=%llu", ull(index),
          ull(entry), ull(stored(place / cluster_)));
    if (place >= file_bytes_) co_return;
    if (walks_left_.load(std::memory_order_relaxed) == 0) {
      if (!gave_up_.exchange(true))
        findings.corruption(
            "ERROR the tables are referenced more often than an image of this size can explain");
      co_return;
    }
    walks_left_.fetch_sub(1, std::memory_order_relaxed);
    co_await node_.file_->read(place, l2);
    walk_l2(l2, walk.active, findings);
  }

  void walk_l2(ByteSpan table, bool active, Findings& findings) {
    const unsigned width = header_.l2_entry_bytes();
    for (size_t at = 0; at < cluster_; at += width) {
      const uint64_t entry = load_be<uint64_t>(table, at);
      const uint64_t bitmap = width == 16 ? load_be<uint64_t>(table, at + 8) : 0;
      if (entry == 0 && bitmap == 0) continue;
      if (entry & kCompressed) {
        compressed(entry, bitmap, active, findings);
        continue;
      }
      const uint64_t host = entry & kOffsetMask;
      const uint64_t known = kOffsetMask | kCopied | kZeroFlag;
      if (entry & ~known)
        findings.corruption("ERROR found l2 entry with reserved bits set: %llx", ull(entry));
      if (host == 0) {
        if ((bitmap & 0xffffffff) != 0)
          findings.corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map");
        continue;
      }
      if ((bitmap & bitmap >> 32 & 0xffffffff) != 0)
        findings.corruption(
            "ERROR offset=%llx: Allocated cluster has corrupted subcluster allocation bitmap",
            ull(host));
      if (!is_aligned(host, cluster_)) {
        const bool zero = width == 16 ? (bitmap & 0xffffffff) == 0 : (entry & kZeroFlag) != 0;
        findings.corruption(
            "ERROR offset=%llx: %s cluster is not properly aligned; L2 entry corrupted.", ull(host),
            zero ? "Preallocated" : "Data");
        continue;
      }
      if (active) {
        ++findings.allocated;
        if (findings.first_host == 0)
          findings.first_host = host;
        else if (host != findings.next_host)
          ++findings.fragmented;
        findings.next_host = host + cluster_;
        const uint64_t references = stored(host / cluster_);
        if (references != 0 && (references == 1) != ((entry & kCopied) != 0))
          findings.corruption("ERROR OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu",
                              ull(entry), ull(references));
      }
      count(host, cluster_, findings);
    }
  }

  void compressed(uint64_t entry, uint64_t bitmap, bool active, Findings& findings) {
    const CompressedPlace place = CompressedPlace::decode(entry, header_.cluster_bits);
    if (entry & kCopied)
      findings.corruption(
          "ERROR: coffset=0x%llx: copied flag must never be set for compressed clusters",
          ull(place.offset));
    if (bitmap != 0)
      findings.corruption(
          "ERROR compressed cluster %llu with non-zero subcluster allocation bitmap, entry=0x%llx",
          ull(place.offset / cluster_), ull(entry));
    count(place.offset, place.length, findings);
    if (!active) return;
    ++findings.compressed;
    ++findings.allocated;
    ++findings.fragmented;
  }

  uint64_t snapshot_table_bytes() const {
    uint64_t bytes = 0;
    for (const SnapshotEntry& snapshot : node_.snapshots_) bytes += snapshot.encoded_bytes;
    return bytes;
  }

  Task<void> walk_bitmaps() {
    if (node_.bitmaps_.empty()) co_return;
    count(node_.extensions_.bitmaps->directory_offset, node_.extensions_.bitmaps->directory_bytes,
          told_);
    for (const BitmapEntry& bitmap : node_.bitmaps_) {
      count(bitmap.table_offset, uint64_t{bitmap.table_entries} * 8, told_);
      std::vector<std::byte> table(uint64_t{bitmap.table_entries} * 8);
      co_await node_.file_->read(bitmap.table_offset, table);
      for (size_t at = 0; at < table.size(); at += 8) {
        const uint64_t place = load_be<uint64_t>(table, at) & kOffsetMask;
        if (place != 0) count(place, cluster_, told_);
      }
    }
  }

  void count_blocks() {
    for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
      const uint64_t offset = node_.refcount_table_[i];
      if (offset == 0) continue;
      if (!is_aligned(offset, cluster_)) {
        told_.corruption(
            "ERROR refcount block %zu is not cluster aligned; refcount table entry corrupted", i);
      } else if (offset >= file_bytes_) {
        told_.corruption("ERROR refcount block %zu is outside image", i);
      } else {
        count(offset, cluster_, told_);
        if (counted(offset / cluster_) != 1)
          told_.corruption("ERROR refcount block %zu refcount=%llu", i,
                           ull(counted(offset / cluster_)));
      }
    }
  }

  Task<void> compare() {
    const uint64_t per_block = header_.refcounts_per_block();
    AlignedBuffer block(cluster_);
    for (uint64_t begin = 0; begin < counts_.size(); begin += per_block) {
      const uint64_t end = std::min<uint64_t>(begin + per_block, counts_.size());
      const uint64_t index = begin / per_block;
      const uint64_t offset =
          index < node_.refcount_table_.size() ? node_.refcount_table_[index] : 0;
      const bool present = offset != 0 && is_aligned(offset, cluster_) && offset < file_bytes_;
      if (!present && is_zero(counts_.bytes(begin, end - begin))) continue;
      if (present) co_await node_.file_->read(offset, block.span());
      for (uint64_t i = begin; i < end; ++i)
        compare_cluster(
            i, present ? get_refcount(block.span(), i - begin, header_.refcount_order) : 0);
    }
    tell(told_);
  }

  void compare_cluster(uint64_t index, uint64_t is) {
    const uint64_t should = counted(index);
    if (is != 0 || should != 0) result_.image_end_offset = (index + 1) * cluster_;
    if (is < should)
      told_.corruption("ERROR cluster %llu refcount=%llu reference=%llu", ull(index), ull(is),
                       ull(should));
    else if (is > should)
      leak(index, is, should);
    if (told_.lines.size() > 1000) tell(told_);
  }

  void leak(uint64_t index, uint64_t is, uint64_t should) {
    tell(told_);
    char text[128];
    std::snprintf(text, sizeof text, "Leaked cluster %llu refcount=%llu reference=%llu", ull(index),
                  ull(is), ull(should));
    if (request_.report) request_.report(text);
    ++result_.leaks;
  }

  Qcow2Node& node_;
  const CheckRequest& request_;
  const Header& header_;
  uint64_t cluster_;
  uint64_t file_bytes_;
  CheckResult result_;
  Findings told_;  // outside of the L1 walks
  ZeroedArray<uint8_t> counts_;
  std::atomic<uint64_t> walks_left_;  // L2 tables, or clusters of L1 tables
  std::atomic<bool> gave_up_{false};
  std::mutex more_mutex_;
  std::unordered_map<uint64_t, uint64_t> more_;
  ZeroedArray<uint64_t> is_one_;  // a bit per cluster whose stored refcount is one
  ZeroedArray<uint64_t> is_more_;
  std::unordered_map<uint64_t, uint64_t> stored_more_;
};

Task<CheckResult> Qcow2Node::check(CheckRequest request) {
  if (request.repair != CheckRequest::Repair::kNone)
    throw Error(ErrorKind::kUnsupported, "This version reports, but does not repair");
  Qcow2Checker checker(*this, request);
  co_return co_await checker.run();
}

}  // namespace cairn
