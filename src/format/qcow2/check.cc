#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <unordered_map>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Counts every reference anew and compares with what the image says.
class Qcow2Checker {
 public:
  Qcow2Checker(Qcow2Node& node, const CheckRequest& request)
      : node_(node), request_(request), header_(node.header_), cluster_(header_.cluster_bytes()),
        file_bytes_(node.file_->length()), counts_(div_ceil(file_bytes_, cluster_)) {}

  Task<CheckResult> run() {
    result_.total_clusters = div_ceil(header_.size, cluster_);
    co_await load_refcounts();
    count(0, cluster_);
    co_await walk_l1(header_.l1_offset, node_.l1_count_, true);
    for (const SnapshotEntry& snapshot : node_.snapshots_) {
      const auto end = checked_add(snapshot.l1_offset, uint64_t{snapshot.l1_entries} * 8);
      if (!is_aligned(snapshot.l1_offset, cluster_)) {
        corruption("ERROR snapshot %s (%s) l1_offset=%#llx: L1 table is not cluster aligned; snapshot table "
                   "entry corrupted", snapshot.id.c_str(), snapshot.name.c_str(), ull(snapshot.l1_offset));
      } else if (!end || uint64_t{snapshot.l1_entries} * 8 > kMaxL1Bytes) {
        corruption("ERROR snapshot %s (%s) l1_size=%#x: L1 table is too large; snapshot table entry corrupted",
                   snapshot.id.c_str(), snapshot.name.c_str(), snapshot.l1_entries);
      } else {
        co_await walk_l1(snapshot.l1_offset, snapshot.l1_entries, false);
      }
    }
    if (header_.snapshot_count != 0) count(header_.snapshots_offset, snapshot_table_bytes());
    count(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} * cluster_);
    if (const auto& crypto = node_.extensions_.crypto) count(crypto->first, crypto->second);
    co_await walk_bitmaps();
    count_blocks();
    compare();
    co_return result_;
  }

 private:
  static unsigned long long ull(uint64_t value) { return value; }

  void line(const char* format, va_list arguments) {
    char text[256];
    std::vsnprintf(text, sizeof text, format, arguments);
    if (request_.report) request_.report(text);
  }
  __attribute__((format(printf, 2, 3))) void corruption(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    line(format, arguments);
    va_end(arguments);
    ++result_.corruptions;
  }
  __attribute__((format(printf, 3, 4))) void leak(uint64_t clusters, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    line(format, arguments);
    va_end(arguments);
    result_.leaks += clusters;
  }

  // One byte a cluster; the few that are referenced more often count on in a map.
  void count(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    const auto end = checked_add(offset, length);
    if (!end || div_ceil(*end, cluster_) > counts_.size()) {
      corruption("ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                 "offset 0x%llx size 0x%llx", ull(offset), ull(length));
      return;
    }
    for (uint64_t at = offset / cluster_; at <= (*end - 1) / cluster_; ++at) {
      if (counts_[at] == UINT8_MAX) ++more_[at];
      else ++counts_[at];
    }
  }
  uint64_t counted(uint64_t index) const {
    if (counts_[index] != UINT8_MAX) return counts_[index];
    const auto more = more_.find(index);
    return UINT8_MAX + (more == more_.end() ? 0 : more->second);
  }

  // A bit per cluster whose stored refcount is one, for the COPIED flags, and the stored counters.
  Task<void> load_refcounts() {
    is_one_.resize(counts_.size());
    AlignedBuffer block(cluster_);
    const uint64_t per_block = header_.refcounts_per_block();
    for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
      const uint64_t offset = node_.refcount_table_[i];
      if (offset == 0 || !is_aligned(offset, cluster_) || offset >= file_bytes_) continue;
      if (i * per_block >= counts_.size()) continue;
      co_await node_.file_->read(offset, block.span());
      for (uint64_t c = 0; c < per_block && i * per_block + c < counts_.size(); ++c) {
        const uint64_t stored = get_refcount(block.span(), c, header_.refcount_order);
        if (stored == 1) is_one_[i * per_block + c] = true;
        else if (stored != 0) stored_more_[i * per_block + c] = stored;
      }
    }
  }
  uint64_t stored(uint64_t index) const {
    if (index >= is_one_.size()) return 0;
    if (is_one_[index]) return 1;
    const auto found = stored_more_.find(index);
    return found == stored_more_.end() ? 0 : found->second;
  }

  Task<void> walk_l1(uint64_t offset, uint64_t entries, bool active) {
    if (entries == 0) co_return;
    count(offset, entries * 8);
    std::vector<std::byte> table(entries * 8);
    co_await node_.file_->read(offset, table);
    AlignedBuffer l2(cluster_);
    uint64_t next_contiguous = 0;
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t entry = load_be<uint64_t>(table, i * 8);
      if (entry == 0) continue;
      const uint64_t place = entry & kOffsetMask;
      if (entry & ~(kOffsetMask | kCopied))
        corruption("ERROR found L1 entry with reserved bits set: %llx", ull(entry));
      count(place, cluster_);
      if (!is_aligned(place, cluster_)) {
        corruption("ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry corrupted", ull(place));
        continue;
      }
      if (active && stored(place / cluster_) != 0 &&
          (stored(place / cluster_) == 1) != ((entry & kCopied) != 0))
        corruption("ERROR OFLAG_COPIED L2 cluster: l1_index=%llu l1_entry=%llx refcount=%llu", ull(i),
                   ull(entry), ull(stored(place / cluster_)));
      if (place >= file_bytes_) continue;
      co_await node_.file_->read(place, l2.span());
      walk_l2(l2.span(), active, &next_contiguous);
    }
  }

  void walk_l2(ByteSpan table, bool active, uint64_t* next_contiguous) {
    const unsigned width = header_.l2_entry_bytes();
    for (size_t at = 0; at < cluster_; at += width) {
      const uint64_t entry = load_be<uint64_t>(table, at);
      const uint64_t bitmap = width == 16 ? load_be<uint64_t>(table, at + 8) : 0;
      if (entry == 0 && bitmap == 0) continue;
      if (entry & kCompressed) {
        compressed(entry, bitmap, active);
        continue;
      }
      const uint64_t host = entry & kOffsetMask;
      const uint64_t known = kOffsetMask | kCopied | kZeroFlag;
      if (entry & ~known) corruption("ERROR found l2 entry with reserved bits set: %llx", ull(entry));
      if (host == 0) {
        if ((bitmap & 0xffffffff) != 0)
          corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map");
        continue;
      }
      if ((bitmap & bitmap >> 32 & 0xffffffff) != 0)
        corruption("ERROR offset=%llx: Allocated cluster has corrupted subcluster allocation bitmap", ull(host));
      if (!is_aligned(host, cluster_)) {
        const bool zero = width == 16 ? (bitmap & 0xffffffff) == 0 : (entry & kZeroFlag) != 0;
        corruption("ERROR offset=%llx: %s cluster is not properly aligned; L2 entry corrupted.", ull(host),
                   zero ? "Preallocated" : "Data");
        continue;
      }
      if (active) {
        ++result_.allocated_clusters;
        if (*next_contiguous != 0 && host != *next_contiguous) ++result_.fragmented_clusters;
        *next_contiguous = host + cluster_;
        const uint64_t references = stored(host / cluster_);
        if (references != 0 && (references == 1) != ((entry & kCopied) != 0))
          corruption("ERROR OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu", ull(entry), ull(references));
      }
      count(host, cluster_);
    }
  }

  void compressed(uint64_t entry, uint64_t bitmap, bool active) {
    const CompressedPlace place = CompressedPlace::decode(entry, header_.cluster_bits);
    if (entry & kCopied)
      corruption("ERROR: coffset=0x%llx: copied flag must never be set for compressed clusters",
                 ull(place.offset));
    if (bitmap != 0)
      corruption("ERROR compressed cluster %llu with non-zero subcluster allocation bitmap, entry=0x%llx",
                 ull(place.offset / cluster_), ull(entry));
    count(place.offset, place.length);
    if (!active) return;
    ++result_.compressed_clusters;
    ++result_.allocated_clusters;
    ++result_.fragmented_clusters;
  }

  uint64_t snapshot_table_bytes() const {
    uint64_t bytes = 0;
    for (const SnapshotEntry& snapshot : node_.snapshots_) bytes += snapshot.encoded_bytes;
    return bytes;
  }

  Task<void> walk_bitmaps() {
    if (node_.bitmaps_.empty()) co_return;
    count(node_.extensions_.bitmaps->directory_offset, node_.extensions_.bitmaps->directory_bytes);
    for (const BitmapEntry& bitmap : node_.bitmaps_) {
      count(bitmap.table_offset, uint64_t{bitmap.table_entries} * 8);
      std::vector<std::byte> table(uint64_t{bitmap.table_entries} * 8);
      co_await node_.file_->read(bitmap.table_offset, table);
      for (size_t at = 0; at < table.size(); at += 8) {
        const uint64_t place = load_be<uint64_t>(table, at) & kOffsetMask;
        if (place != 0) count(place, cluster_);
      }
    }
  }

  void count_blocks() {
    for (size_t i = 0; i < node_.refcount_table_.size(); ++i) {
      const uint64_t offset = node_.refcount_table_[i];
      if (offset == 0) continue;
      if (!is_aligned(offset, cluster_)) {
        corruption("ERROR refcount block %zu is not cluster aligned; refcount table entry corrupted", i);
      } else if (offset >= file_bytes_) {
        corruption("ERROR refcount block %zu is outside image", i);
      } else {
        count(offset, cluster_);
        if (counted(offset / cluster_) != 1)
          corruption("ERROR refcount block %zu refcount=%llu", i, ull(counted(offset / cluster_)));
      }
    }
  }

  void compare() {
    for (uint64_t i = 0; i < counts_.size(); ++i) {
      const uint64_t is = stored(i);
      const uint64_t should = counted(i);
      if (is != 0 || should != 0) result_.image_end_offset = (i + 1) * cluster_;
      if (is < should)
        corruption("ERROR cluster %llu refcount=%llu reference=%llu", ull(i), ull(is), ull(should));
      else if (is > should)
        leak(1, "Leaked cluster %llu refcount=%llu reference=%llu", ull(i), ull(is), ull(should));
    }
  }

  Qcow2Node& node_;
  const CheckRequest& request_;
  const Header& header_;
  uint64_t cluster_;
  uint64_t file_bytes_;
  CheckResult result_;
  std::vector<uint8_t> counts_;
  std::unordered_map<uint64_t, uint64_t> more_;
  std::vector<bool> is_one_;
  std::unordered_map<uint64_t, uint64_t> stored_more_;
};

Task<CheckResult> Qcow2Node::check(CheckRequest request) {
  if (request.repair != CheckRequest::Repair::kNone)
    throw Error(ErrorKind::kUnsupported, "This version reports, but does not repair");
  Qcow2Checker checker(*this, request);
  co_return co_await checker.run();
}

}  // namespace cairn
