#include <algorithm>

#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/work_report.h"
#include "format/qcow2/check.h"

namespace cairn {

using namespace qcow2;

// The walk over L1 and L2 tables: references are counted, entries looked at. Workers take stretches
// of an L1 table; what they find is reported in the order of the table.

Task<void> Qcow2Checker::walk_snapshot(const SnapshotEntry& snapshot) {
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

Task<void> Qcow2Checker::walk_l1(uint64_t offset, uint64_t entries, bool active) {
  if (entries == 0) co_return;
  const uint64_t before = told_.corruptions;
  count(offset, entries * 8, told_);
  const bool lies_outside = told_.corruptions != before && offset >= file_bytes_;
  const uint64_t clusters = div_ceil(entries * 8, cluster_);
  if (clusters > walks_left_) {
    if (walks_left_ != 0) ++result_.check_errors;
    walks_left_ = 0;
    co_return;
  }
  walks_left_ -= clusters;
  tell(told_);
  if (lies_outside) co_return;
  L1Walk walk{.offset = offset, .entries = entries, .active = active};
  Runtime& runtime = node_.context().runtime();
  const auto workers = static_cast<unsigned>(
      std::min<uint64_t>(runtime.worker_count(), div_ceil(entries, kStretch)));
  TaskGroup group;
  for (unsigned i = 0; i < workers; ++i) group.spawn_on(runtime.worker(i), walk_stretches(walk));
  co_await group.join();
}

Task<void> Qcow2Checker::walk_stretches(L1Walk& walk) {
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
        if (entry != 0) co_await walk_entry(walk, entry, l2.span(), findings);
      }
    } catch (...) {
      error = std::current_exception();
    }
    co_await walk.order.run(stretch, tell_in_turn(findings));
    const uint64_t walked = l1_walked_.fetch_add(some) + some;
    report_work(node_.context(), "check", walked, std::max(walked, l1_total_));
  }
  if (error) std::rethrow_exception(error);
}

Task<void> Qcow2Checker::tell_in_turn(Findings& findings) {
  const std::vector<Findings::Fix> fixes = std::move(findings.fixes);
  tell(findings);
  if (fixes.empty()) co_return;
  for (const Findings::Fix& fix : fixes) {
    std::byte entry[16];
    store_be<uint64_t>(entry, 0, fix.word);
    store_be<uint64_t>(entry, 8, fix.bitmap);
    co_await write(fix.place, ByteSpan(entry).first(header_.l2_entry_bytes()));
    ++result_.corruptions_fixed;
  }
  co_await commit();
}

Task<void> Qcow2Checker::walk_entry(L1Walk& walk, uint64_t entry, MutableByteSpan l2,
                                    Findings& findings) {
  const uint64_t place = entry & kOffsetMask;
  if (entry & ~(kOffsetMask | kCopied))
    findings.corruption("ERROR found L1 entry with reserved bits set: %llx", ull(entry));
  if (place == 0) co_return;
  count(place, cluster_, findings);
  if (!is_aligned(place, cluster_))
    findings.corruption("ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry corrupted",
                        ull(place));
  if (walk.active && says_one(place / cluster_) != ((entry & kCopied) != 0))
    copied_differs_.store(true, std::memory_order_relaxed);
  if (place >= file_bytes_) co_return;
  if (walks_left_.load(std::memory_order_relaxed) == 0) {
    if (!gave_up_.exchange(true))
      findings.corruption(
          "ERROR the tables are referenced more often than an image of this size can explain");
    co_return;
  }
  walks_left_.fetch_sub(1, std::memory_order_relaxed);
  co_await node_.file_->read(place, l2);
  walk_l2(l2, place, walk.active, findings);
}

void Qcow2Checker::walk_l2(ByteSpan table, uint64_t place, bool active, Findings& findings) {
  const unsigned width = header_.l2_entry_bytes();
  const bool counted_here = (header_.incompatible & kIncompatDataFile) == 0;
  uint64_t next_host = 0;  // after the last plain cluster of this table
  for (size_t at = 0; at < cluster_; at += width) {
    const uint64_t entry = load_be<uint64_t>(table, at);
    const uint64_t bitmap = width == 16 ? load_be<uint64_t>(table, at + 8) : 0;
    if (entry == 0 && bitmap == 0) continue;
    if (entry & kCompressed) {
      compressed(entry, bitmap, at / width, active, findings);
      continue;
    }
    if (header_.version == 2 && (entry & kZeroFlag) != 0)
      old_zeroes_.fetch_add(1, std::memory_order_relaxed);
    const uint64_t host = entry & kOffsetMask;
    const uint64_t known = kOffsetMask | kCopied | kZeroFlag;
    if (entry & ~known)
      findings.corruption("ERROR found l2 entry with reserved bits set: %llx", ull(entry));
    // With a data file, its first cluster is at 0.
    if (host == 0 && (counted_here || (entry & kCopied) == 0)) {
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
      const bool fix = zero && fixes_all();
      findings.line("%s offset=%llx: %s cluster is not properly aligned; L2 entry corrupted.",
                    fix ? "Repairing" : "ERROR", ull(host), zero ? "Preallocated" : "Data");
      if (fix) {
        // What read as zeroes still does; there never was data.
        findings.fixes.push_back({.place = place + at,
                                  .word = width == 16 ? 0 : kZeroFlag,
                                  .bitmap = bitmap & ~uint64_t{0xffffffff}});
        continue;
      }
      ++findings.corruptions;
      if (zero) std::atomic_ref(plan_.entries).fetch_add(1, std::memory_order_relaxed);
    }
    if (active) {
      ++findings.allocated;
      if (next_host != 0 && host != next_host) ++findings.fragmented;
      next_host = host + cluster_;
      // A cluster of the data file is always this image's alone.
      const bool one = !counted_here || says_one(host / cluster_);
      if (one != ((entry & kCopied) != 0)) copied_differs_.store(true, std::memory_order_relaxed);
    }
    if (counted_here)
      count(host, cluster_, findings);
    else if (width == 16 ? (bitmap & 0xffffffff) != 0 : (entry & kZeroFlag) == 0)
      data_file_has(host, findings);
  }
}

// What the reader refuses is found. The last cluster may be short.
void Qcow2Checker::data_file_has(uint64_t host, Findings& findings) {
  if (node_.context().profile.past_end != PastEnd::kRefuse || !node_.external_ ||
      host < node_.data_->length())
    return;
  findings.corruption("ERROR: the data at 0x%llx is past the end of the data file (%llu bytes)",
                      ull(host), ull(node_.data_->length()));
}

void Qcow2Checker::compressed(uint64_t entry, uint64_t bitmap, uint64_t index, bool active,
                              Findings& findings) {
  const CompressedPlace place = CompressedPlace::decode(entry, header_.cluster_bits);
  if (entry & kCopied) {
    findings.corruption(
        "ERROR: coffset=0x%llx: copied flag must never be set for compressed clusters",
        ull(place.offset));
    entry &= ~kCopied;
  }
  if (header_.incompatible & kIncompatDataFile) {
    findings.corruption("ERROR compressed cluster %llu with data file, entry=0x%llx", ull(index),
                        ull(entry));
    return;
  }
  if (bitmap != 0) {
    findings.corruption(
        "ERROR compressed cluster %llu with non-zero subcluster allocation bitmap, entry=0x%llx",
        ull(index), ull(entry));
    return;
  }
  count(place.offset, place.length, findings);
  if (!active) return;
  ++findings.compressed;
  ++findings.allocated;
  ++findings.fragmented;
}

}  // namespace cairn
