#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"
#include "format/qcow2/check.h"

namespace cairn {

using namespace qcow2;

namespace {
constexpr uint64_t kPieceBytes = 1 << 20;
// A refcount block that is further past the end than this is not reached by making the file
// longer.
constexpr uint64_t kMaxGrowth = uint64_t{1} << 30;
}  // namespace

// From the first write on the image is marked as corrupt, so that nobody writes to one that is
// half repaired; finish() sets the marks right.
Task<void> Qcow2Checker::write(uint64_t offset, ByteSpan bytes) {
  if (!std::exchange(marked_, true) && header_.version >= 3) {
    std::byte field[8];
    store_be<uint64_t>(field, 0, header_.incompatible | kIncompatCorrupt);
    co_await journal_->write(72, field);
  }
  for (uint64_t at = 0; at < bytes.size(); at += kPieceBytes)
    co_await journal_->write(offset + at,
                             bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at)));
}

Task<void> Qcow2Checker::commit() { co_await journal_->commit(); }

// A block past the end of the file: `-r all` makes the file long enough. True when the block can
// be counted now.
Task<bool> Qcow2Checker::include_block(uint64_t index, uint64_t offset) {
  const auto end = checked_add(offset, cluster_);
  const bool near =
      end && *end <= 2 * file_bytes_ + kMaxGrowth && div_ceil(*end, cluster_) <= kMaxHostClusters;
  if (!fixes_all()) {
    told_.corruption("ERROR refcount block %llu is outside image", ull(index));
    co_return false;
  }
  told_.line("Repairing refcount block %llu is outside image", ull(index));
  if (!near) {
    const bool possible = end && *end <= static_cast<uint64_t>(INT64_MAX);
    told_.corruption("ERROR could not resize image: %s",
                     possible ? "File too large" : "Invalid argument");
    must_rebuild_ = true;
    co_return false;
  }
  // The last byte is enough; what is before reads as zeroes.
  const std::byte zero[1] = {};
  co_await write(*end - 1, zero);
  co_await commit();
  file_bytes_ = *end;
  counts_.grow(div_ceil(file_bytes_, cluster_) + 1);
  ++result_.corruptions_fixed;
  co_return true;
}

// --- the refcount structures, rebuilt ---

// CLUSTERS free ones in a row, the lowest from FIRST on, counted as used from now on.
uint64_t Qcow2Checker::take_free(uint64_t first, uint64_t clusters) {
  uint64_t run = 0;
  for (uint64_t c = first; run < clusters; ++c) {
    if (c < counts_.size() && counts_[c] != 0) {
      first = c + 1;
      run = 0;
    } else {
      ++run;
    }
  }
  counts_.grow(first + clusters);
  for (uint64_t c = first; c < first + clusters; ++c) counts_[c] = 1;
  return first;
}

// Blocks for all that is counted, and a table of them, in free clusters. The old ones stay as they
// are until the header names the new table.
Task<void> Qcow2Checker::rebuild() {
  if (request_.report) request_.report("Rebuilding refcount structure");
  const CheckResult before = result_;
  const uint64_t per_block = header_.refcounts_per_block();
  std::vector<uint64_t> blocks;  // offset by index; 0: nothing to count there
  uint64_t table = 0;
  uint64_t table_clusters = 0;
  for (bool again = true; again;) {
    again = false;
    for (uint64_t begin = 0; begin < counts_.size(); begin += per_block) {
      const uint64_t index = begin / per_block;
      if (index < blocks.size() && blocks[index] != 0) continue;
      const uint64_t end = std::min<uint64_t>(begin + per_block, counts_.size());
      if (is_zero(counts_.bytes(begin, end - begin))) continue;
      if (blocks.size() <= index) blocks.resize(index + 1);
      blocks[index] = take_free(begin, 1) * cluster_;
      again = true;
    }
    const uint64_t wanted = div_ceil(blocks.size() * 8, cluster_);
    if (again || wanted <= table_clusters) continue;
    if (wanted * cluster_ > kMaxRefcountTableBytes) throw Error::system(EFBIG);
    for (uint64_t c = 0; c < table_clusters; ++c) counts_[table + c] = 0;
    table = take_free(0, wanted);
    table_clusters = wanted;
    again = true;
  }
  co_await write_blocks(blocks);
  std::vector<std::byte> bytes(table_clusters * cluster_);
  for (size_t i = 0; i < blocks.size(); ++i) store_be<uint64_t>(bytes, i * 8, blocks[i]);
  co_await write(table * cluster_, bytes);
  co_await commit();
  co_await node_.file_->flush();
  std::byte field[12];
  store_be<uint64_t>(field, 0, table * cluster_);
  store_be<uint32_t>(field, 8, static_cast<uint32_t>(table_clusters));
  co_await write(48, field);
  co_await commit();
  co_await node_.file_->flush();
  node_.header_.refcount_table_offset = table * cluster_;
  node_.header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);

  // What the old structures took is left over; everything is counted once more.
  file_bytes_ = std::max(node_.file_->length(), file_bytes_);
  start_counts();
  plan_ = {};
  result_.corruptions = 0;
  result_.leaks = 0;
  result_.check_errors = 0;
  result_.allocated_clusters = result_.fragmented_clusters = result_.compressed_clusters = 0;
  result_.corruptions += snapshots_wrong_;
  co_await count_all();
  const CheckResult counted = result_;
  result_.corruptions_fixed = result_.leaks_fixed = 0;
  co_await compare(Repair::kLeaks);
  result_.corruptions_fixed = counted.corruptions_fixed;
  result_.leaks_fixed = counted.leaks_fixed;
  if (must_rebuild_ && request_.report)
    request_.report("ERROR rebuilt refcount structure is still broken");
  if (before.corruptions > result_.corruptions)
    result_.corruptions_fixed += before.corruptions - result_.corruptions;
  if (before.leaks > result_.leaks) result_.leaks_fixed += before.leaks - result_.leaks;
}

Task<void> Qcow2Checker::write_blocks(const std::vector<uint64_t>& blocks) {
  const uint64_t per_block = header_.refcounts_per_block();
  AlignedBuffer block(cluster_);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] == 0) continue;
    std::fill_n(block.data(), cluster_, std::byte{0});
    for (uint64_t c = 0; c < per_block && i * per_block + c < counts_.size(); ++c)
      if (const uint64_t value = counted(i * per_block + c); value != 0)
        set_refcount(block.span(), c, header_.refcount_order, value);
    co_await write(blocks[i], std::as_const(block).span());
  }
}

// Clears the marks for dirty and corrupt images when nothing is wrong any more, ends the journal.
Task<void> Qcow2Checker::finish() {
  co_await journal_->complete();
  const bool sound = result_.corruptions == 0 && result_.check_errors == 0;
  const uint64_t marks = kIncompatDirty | kIncompatCorrupt;
  const uint64_t wanted = sound ? header_.incompatible & ~marks : header_.incompatible;
  if (header_.version >= 3 && (marked_ || wanted != header_.incompatible)) {
    std::byte field[8];
    store_be<uint64_t>(field, 0, wanted);
    co_await node_.write_header_field(72, field);
    node_.header_.incompatible = wanted;
  }
  co_await journal_->remove();
  if (marked_) co_await node_.read_tables();
}

// Readers refuse the zero flag in an image of version 2; in one of version 3 the same tables are
// right. QEMU's check does not look for it.
Task<void> Qcow2Checker::fix_version() {
  const uint64_t entries = old_zeroes_;
  const bool sound = result_.corruptions == 0 && result_.check_errors == 0;
  const bool fix = fixes_all() && sound;
  if (request_.report)
    request_.report(fmt::format(
        "{}{} L2 entries with the zero flag, which version 2 does not have{}",
        fix ? "Repairing " : "ERROR ", entries, fix ? ": the image becomes one of version 3" : ""));
  if (fix) {
    co_await node_.upgrade();
    result_.corruptions_fixed += entries;
    co_return;
  }
  result_.corruptions += entries;
  if (!fixes_leaks())
    result_.plan.emplace_back("all: the image becomes one of version 3, which has the zero flag");
}

}  // namespace cairn
