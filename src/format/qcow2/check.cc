#include "format/qcow2/check.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"

namespace cairn {

using namespace qcow2;

namespace {
// More lines of one stretch than this are counted and not kept.
constexpr size_t kMaxKeptLines = 20'000;

std::string formatted(const char* format, va_list arguments) {
  char text[320];
  std::vsnprintf(text, sizeof text, format, arguments);
  return text;
}
}  // namespace

void Findings::keep(const char* format, va_list arguments) {
  if (lines.size() > kMaxKeptLines) return;
  lines.push_back(lines.size() == kMaxKeptLines ? "More findings are counted and not listed"
                                                : formatted(format, arguments));
}

void Findings::line(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  keep(format, arguments);
  va_end(arguments);
}

void Findings::corruption(const char* format, ...) {
  ++corruptions;
  va_list arguments;
  va_start(arguments, format);
  keep(format, arguments);
  va_end(arguments);
}

Qcow2Checker::Qcow2Checker(Qcow2Node& node, const CheckRequest& request)
    : node_(node),
      request_(request),
      header_(node.header_),
      cluster_(header_.cluster_bytes()),
      file_bytes_(node.file_->length()),
      most_(header_.refcount_order == 6 ? UINT64_MAX
                                        : (uint64_t{1} << header_.refcount_bits()) - 1),
      counts_(0),
      is_one_(0) {}

Task<CheckResult> Qcow2Checker::run() {
  if (div_ceil(file_bytes_, cluster_) > kMaxHostClusters) throw Error::system(EFBIG);
  result_.total_clusters = div_ceil(header_.size, cluster_);
  if (fixes_leaks()) journal_ = std::make_unique<RepairJournal>(*node_.file_);
  start_counts();
  std::exception_ptr error;
  try {
    co_return co_await examine();
  } catch (...) {
    error = std::current_exception();
  }
  tell(told_);
  if (journal_) co_await journal_->leave();
  std::rethrow_exception(error);
}

Task<CheckResult> Qcow2Checker::examine() {
  co_await read_snapshots();
  co_await count_all();
  co_await compare(Repair::kNone);
  if (must_rebuild_ && fixes_all()) {
    co_await rebuild();
  } else if (fixes_leaks()) {
    if (must_rebuild_) {
      if (request_.report) request_.report("ERROR need to rebuild refcount structures");
      throw Error::system(EIO);
    }
    if (result_.leaks != 0 || result_.corruptions != 0 || past_end_ != 0) {
      const CheckResult before = result_;
      // What refers to a place past the end is corrupt.
      drops_past_end_ = before.corruptions == 0 && before.check_errors == 0;
      result_.leaks = 0;
      result_.corruptions = 0;
      const uint64_t others = before.corruptions - plan_.raised;
      plan_ = {};
      co_await compare(request_.repair);
      result_.corruptions += others;
    }
  }
  co_await check_copied();
  co_await fix_snapshots();
  if (fixes_leaks()) co_await finish();
  if (old_zeroes_ != 0 && request_.extensions) co_await fix_version();
  if (!fixes_leaks()) write_plan();
  co_return result_;
}

void Qcow2Checker::start_counts() {
  // One more than the file has: a table may extend past its end by less than a cluster.
  counts_.reset(div_ceil(file_bytes_, cluster_) + 1);
  more_.clear();
  walks_left_ = 4 * counts_.size() + kMinWalks;
  gave_up_ = false;
}

// Counts every reference.
Task<void> Qcow2Checker::count_all() {
  must_rebuild_ = false;
  copied_differs_ = false;
  old_zeroes_ = 0;
  co_await read_table();
  co_await load_refcounts();
  count(0, cluster_, told_);
  l1_walked_ = 0;
  l1_total_ = node_.l1_count_;
  for (const SnapshotEntry& snapshot : snapshots_) l1_total_ += snapshot.l1_entries;
  co_await walk_l1(header_.l1_offset, node_.l1_count_, true);
  if ((header_.incompatible & kIncompatDataFile) && !snapshots_.empty())
    told_.corruption("ERROR %zu snapshots in image with data file", snapshots_.size());
  for (const SnapshotEntry& snapshot : snapshots_) co_await walk_snapshot(snapshot);
  if (header_.snapshot_count != 0) count(header_.snapshots_offset, snapshot_bytes_, told_);
  count(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} * cluster_, told_);
  if (const auto& crypto = node_.extensions_.crypto) count(crypto->first, crypto->second, told_);
  co_await walk_bitmaps();
  co_await count_blocks();
  tell(told_);
}

void Qcow2Checker::tell(Findings& findings) {
  if (request_.report)
    for (const std::string& line : findings.lines) request_.report(line);
  result_.corruptions += findings.corruptions;
  result_.allocated_clusters += findings.allocated;
  result_.compressed_clusters += findings.compressed;
  result_.fragmented_clusters += findings.fragmented;
  findings = {};
}

// One byte a cluster; the few that are referenced more often count on in a map.
void Qcow2Checker::count(uint64_t offset, uint64_t length, Findings& findings) {
  if (length == 0) return;
  const auto end = checked_add(offset, length);
  if (!end || (*end > file_bytes_ && *end - file_bytes_ >= cluster_)) {
    findings.corruption(
        "ERROR: counting reference for region exceeding the end of the file by one cluster or "
        "more: offset 0x%llx size 0x%llx",
        ull(offset), ull(length));
    return;
  }
  for (uint64_t c = offset / cluster_; c < div_ceil(*end, cluster_); ++c) {
    std::atomic_ref<uint8_t> counter(counts_[c]);
    uint8_t now = counter.load(std::memory_order_relaxed);
    while (now != UINT8_MAX && now < most_ &&
           !counter.compare_exchange_weak(now, static_cast<uint8_t>(now + 1),
                                          std::memory_order_relaxed)) {
    }
    if (now == most_) {
      overflow(c, findings);
      continue;
    }
    if (now != UINT8_MAX) continue;
    const std::lock_guard lock(more_mutex_);
    uint64_t& more = more_[c];
    if (more == most_ - UINT8_MAX)
      overflow(c, findings);
    else
      ++more;
  }
}

// Said once for a cluster that comes up again and again, counted each time.
void Qcow2Checker::overflow(uint64_t cluster, Findings& findings) {
  if (overflow_told_.exchange(cluster, std::memory_order_relaxed) == cluster) {
    ++findings.corruptions;
    return;
  }
  findings.corruption("ERROR: overflow cluster offset=0x%llx", ull(cluster * cluster_));
  findings.line(
      "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a "
      "clean copy if the image cannot be opened for writing");
}

uint64_t Qcow2Checker::counted(uint64_t index) const {
  if (index >= counts_.size()) return 0;
  const auto found = counts_[index] == UINT8_MAX ? more_.find(index) : more_.end();
  return counts_[index] + (found == more_.end() ? 0 : found->second);
}

// --- what the image says ---

Task<void> Qcow2Checker::read_table() {
  std::vector<std::byte> bytes(uint64_t{header_.refcount_table_clusters} * cluster_);
  if (!bytes.empty()) co_await node_.file_->read(header_.refcount_table_offset, bytes);
  table_.resize(bytes.size() / 8);
  for (size_t i = 0; i < table_.size(); ++i) table_[i] = load_be<uint64_t>(bytes, i * 8);
}

uint64_t Qcow2Checker::block_place(uint64_t index) const {
  return index < table_.size() ? table_[index] & ~uint64_t{0x1ff} : 0;
}

bool Qcow2Checker::readable_block(uint64_t index) const {
  return is_aligned(block_place(index), cluster_);
}

Task<void> Qcow2Checker::load_refcounts() {
  AlignedBuffer block(cluster_);
  const uint64_t per_block = header_.refcounts_per_block();
  is_one_.reset(div_ceil(counts_.size(), 64));
  for (size_t i = 0; i < table_.size() && i * per_block < counts_.size(); ++i) {
    const uint64_t offset = block_place(i);
    if (offset == 0 || !readable_block(i) || offset >= file_bytes_) continue;
    co_await node_.file_->read(offset, block.span());
    const uint64_t some = std::min(per_block, counts_.size() - i * per_block);
    for (uint64_t c = 0; c < some; ++c) {
      const uint64_t index = i * per_block + c;
      if (get_refcount(block.span(), c, header_.refcount_order) == 1)
        is_one_[index / 64] |= uint64_t{1} << index % 64;
    }
  }
}

bool Qcow2Checker::says_one(uint64_t cluster) const {
  return cluster < counts_.size() && (is_one_[cluster / 64] >> cluster % 64 & 1) != 0;
}

// --- tables of the image itself ---

Task<void> Qcow2Checker::walk_bitmaps() {
  if (node_.bitmaps_.empty()) co_return;
  count(node_.extensions_.bitmaps->directory_offset, node_.extensions_.bitmaps->directory_bytes,
        told_);
  // No cluster belongs to two tables: together they are no longer than the file.
  uint64_t left = align_up(node_.file_->length(), cluster_);
  for (const BitmapEntry& bitmap : node_.bitmaps_) {
    const uint64_t bytes = uint64_t{bitmap.table_entries} * 8;
    if (bytes > left) {
      told_.corruption("ERROR the bitmap tables are longer than the file");
      break;
    }
    left -= bytes;
    count(bitmap.table_offset, uint64_t{bitmap.table_entries} * 8, told_);
    std::vector<std::byte> table(uint64_t{bitmap.table_entries} * 8);
    co_await node_.file_->read(bitmap.table_offset, table);
    for (size_t at = 0; at < table.size(); at += 8) {
      const uint64_t place = load_be<uint64_t>(table, at) & kOffsetMask;
      if (place != 0) count(place, cluster_, told_);
    }
  }
}

Task<void> Qcow2Checker::count_blocks() {
  for (size_t i = 0; i < table_.size(); ++i) {
    const uint64_t offset = block_place(i);
    if ((table_[i] & 0x1ff) != 0) {
      told_.corruption("ERROR refcount table entry %zu has reserved bits set", i);
      must_rebuild_ = true;
      continue;
    }
    if (offset == 0) continue;
    if (!is_aligned(offset, cluster_)) {
      told_.corruption(
          "ERROR refcount block %zu is not cluster aligned; refcount table entry corrupted", i);
      must_rebuild_ = true;
      continue;
    }
    if (offset >= align_up(file_bytes_, cluster_)) {
      const bool included = co_await include_block(i, offset);
      if (!included) continue;
    }
    count(offset, cluster_, told_);
    if (counted(offset / cluster_) != 1) {
      told_.corruption("ERROR refcount block %zu refcount=%llu", i,
                       ull(counted(offset / cluster_)));
      must_rebuild_ = true;
    }
  }
}

// --- the comparison ---

Task<void> Qcow2Checker::compare(Repair repair) {
  const uint64_t per_block = header_.refcounts_per_block();
  AlignedBuffer block(cluster_);
  result_.image_end_offset = cluster_;
  for (uint64_t begin = 0; begin < counts_.size(); begin += per_block) {
    const uint64_t end = std::min<uint64_t>(begin + per_block, counts_.size());
    const uint64_t index = begin / per_block;
    const uint64_t offset = block_place(index);
    const bool readable = readable_block(index);
    const bool present = offset != 0 && readable && offset < file_bytes_;
    if (!present && readable && is_zero(counts_.bytes(begin, end - begin))) continue;
    if (present) co_await node_.file_->read(offset, block.span());
    const Plan before = plan_;
    for (uint64_t i = begin; i < end; ++i)
      compare_cluster(i,
                      present ? get_refcount(block.span(), i - begin, header_.refcount_order) : 0,
                      readable, repair, block.span(), i - begin);
    bool changed = plan_.raised != before.raised || plan_.lowered != before.lowered;
    if (present && request_.extensions && drop_past_end(begin, block.span(), repair))
      changed = true;
    if (repair != Repair::kNone && present && changed)
      co_await write(offset, std::as_const(block).span());
  }
  tell(told_);
  if (repair != Repair::kNone) co_await commit();
}

// Counters in the BLOCK of the clusters from BEGIN on that are past the end of the file, and have
// no reference: what a program that was killed had taken and not yet written. Once the file is
// longer they are leaks. Tells whether any was changed.
bool Qcow2Checker::drop_past_end(uint64_t begin, MutableByteSpan block, Repair repair) {
  const uint64_t end = begin + header_.refcounts_per_block();
  bool changed = false;
  for (uint64_t i = std::max(begin, div_ceil(file_bytes_, cluster_)); i < end; ++i) {
    if (get_refcount(block, i - begin, header_.refcount_order) == 0 || counted(i) != 0) continue;
    ++past_end_;
    if (repair == Repair::kNone || !drops_past_end_) continue;
    set_refcount(block, i - begin, header_.refcount_order, 0);
    changed = true;
  }
  return changed;
}

// Counter AT of BLOCK belongs to cluster INDEX and IS so much; a repair corrects it there.
void Qcow2Checker::compare_cluster(uint64_t index, uint64_t is, bool readable, Repair repair,
                                   MutableByteSpan block, uint64_t at) {
  const uint64_t should = counted(index);
  if (should == 0 && index * cluster_ >= file_bytes_) return;
  if (!readable && !fixes_all()) {
    if (!std::exchange(warned_unaligned_, true)) node_.say_corrupt(unaligned_block(index));
    told_.line("Can't get refcount for cluster %llu: Input/output error", ull(index));
    ++result_.check_errors;
    return;
  }
  if (is != 0 || should != 0) result_.image_end_offset = (index + 1) * cluster_;
  if (is == should) return;
  if (is == 0) must_rebuild_ = true;
  const bool leak = is > should;
  const bool fix = leak ? repair != Repair::kNone : repair == Repair::kAll;
  told_.line("%s cluster %llu refcount=%llu reference=%llu",
             fix    ? "Repairing"
             : leak ? "Leaked"
                    : "ERROR",
             ull(index), ull(is), ull(should));
  ++(leak ? plan_.lowered : plan_.raised);
  if (fix) {
    set_refcount(block, at, header_.refcount_order, should);
    ++(leak ? result_.leaks_fixed : result_.corruptions_fixed);
  } else {
    ++(leak ? result_.leaks : result_.corruptions);
  }
  if (told_.lines.size() > 1000) tell(told_);
}

std::string Qcow2Checker::unaligned_block(uint64_t cluster) const {
  const uint64_t index = cluster / header_.refcounts_per_block();
  char text[96];
  std::snprintf(text, sizeof text, "Refblock offset %#llx unaligned (reftable index: %#llx)",
                ull(block_place(index)), ull(index));
  return text;
}

// What `check -r` would do, in words.
void Qcow2Checker::write_plan() {
  const auto add = [this](uint64_t number, const char* mode, const char* what) {
    if (number != 0) result_.plan.push_back(fmt::format("{}: {} {}", mode, number, what));
  };
  if (must_rebuild_) {
    result_.plan.emplace_back(
        "all: the refcount structures are rebuilt from what the tables refer to");
  } else {
    add(plan_.lowered, "leaks, all", "counters are lowered to what is referenced");
    add(plan_.raised, "all", "counters are raised to what is referenced");
  }
  add(plan_.copied, "leaks (when nothing else is wrong), all", "COPIED flags are corrected");
  add(plan_.entries, "all",
      "entries of zero clusters that point outside the file lose their offset");
  add(snapshots_wrong_, "all", "entries of the snapshot table are completed");
  if (result_.corruptions == 0 && result_.check_errors == 0 &&
      (header_.incompatible & (kIncompatDirty | kIncompatCorrupt)) != 0)
    result_.plan.emplace_back("leaks, all: the marks for a dirty or corrupt image are cleared");
}

Task<CheckResult> Qcow2Node::check(CheckRequest request) {
  Qcow2Checker checker(*this, request);
  co_return co_await checker.run();
}

}  // namespace cairn
