#include "format/qcow2/overlap.h"

#include "base/arith.h"
#include "base/error.h"
#include "format/qcow2/node.h"

namespace cairn {

namespace qcow2 {

uint32_t overlap_parts(const Options& options) {
  static constexpr std::pair<const char*, uint32_t> kParts[] = {
      {"main-header", kOverlapHeader},
      {"active-l1", kOverlapActiveL1},
      {"active-l2", kOverlapActiveL2},
      {"refcount-table", kOverlapRefcountTable},
      {"refcount-block", kOverlapRefcountBlock},
      {"snapshot-table", kOverlapSnapshotTable},
      {"inactive-l1", kOverlapInactiveL1},
      {"inactive-l2", kOverlapInactiveL2},
      {"bitmap-directory", kOverlapBitmapDirectory},
  };
  const auto plain = options.string("overlap-check");
  const auto in_tree = options.string("overlap-check.template");
  if (plain && in_tree && *plain != *in_tree)
    throw Error(ErrorKind::kInvalid, "Conflicting values for qcow2 options 'overlap-check' ('" +
                                         *plain + "') and 'overlap-check.template' ('" + *in_tree +
                                         "')");
  const std::string level = plain ? *plain : in_tree.value_or("cached");
  uint32_t parts = 0;
  if (level == "constant")
    parts = kOverlapConstant;
  else if (level == "cached")
    parts = kOverlapCached;
  else if (level == "all")
    parts = kOverlapAll;
  else if (level != "none")
    throw Error(ErrorKind::kInvalid,
                "Unsupported value '" + level +
                    "' for qcow2 option 'overlap-check'. Allowed are any of the "
                    "following: none, constant, cached, all");
  for (const auto& [name, part] : kParts)
    if (const auto wanted = options.boolean(std::string("overlap-check.") + name))
      parts = *wanted ? parts | part : parts & ~part;
  return parts;
}

}  // namespace qcow2

using namespace qcow2;

namespace {
// More of snapshots' L1 tables than this, besides what the file's size explains, is not read for
// the check of inactive L2 tables.
constexpr uint64_t kMaxInactiveBytes = 64 << 20;
}  // namespace

// Whether a write of LENGTH bytes at OFFSET of the file hits one of PARTS that is checked at all.
// The structure that is being written is left out of PARTS by the caller.
void Qcow2Node::check_overlap(uint64_t offset, uint64_t length, uint32_t parts) {
  parts &= overlap_parts_;
  if (parts == 0 || length == 0) return;
  const uint64_t begin = align_down(offset, cluster());
  const uint64_t end = align_up(offset + length, cluster());
  const auto hits = [&](uint32_t part, uint64_t start, uint64_t bytes) {
    return (parts & part) != 0 && bytes != 0 && begin < start + align_up(bytes, cluster()) &&
           start < end;
  };
  const auto hits_one_of = [&](uint32_t part, const std::unordered_set<uint64_t>& clusters) {
    if ((parts & part) == 0 || clusters.empty()) return false;
    for (uint64_t c = begin / cluster(); c < end / cluster(); ++c)
      if (clusters.contains(c)) return true;
    return false;
  };
  const char* name = nullptr;
  std::unique_lock lock(tables_mutex_);
  if (hits(kOverlapHeader, 0, cluster()))
    name = "qcow2_header";
  else if (hits(kOverlapActiveL1, header_.l1_offset, l1_count_ * 8))
    name = "active L1 table";
  else if (hits_one_of(kOverlapActiveL2, table_clusters_))
    name = "active L2 table";
  else if (hits(kOverlapRefcountTable, header_.refcount_table_offset,
                uint64_t{header_.refcount_table_clusters} * cluster()))
    name = "refcount table";
  else if (hits_one_of(kOverlapRefcountBlock, block_clusters_))
    name = "refcount block";
  else if (header_.snapshot_count != 0 &&
           hits(kOverlapSnapshotTable, header_.snapshots_offset, snapshot_table_bytes()))
    name = "snapshot table";
  else if (hits_one_of(kOverlapInactiveL1, inactive_l1_clusters_))
    name = "inactive L1 table";
  else if (hits_one_of(kOverlapInactiveL2, inactive_l2_clusters_))
    name = "inactive L2 table";
  else if (extensions_.bitmaps &&
           hits(kOverlapBitmapDirectory, extensions_.bitmaps->directory_offset,
                extensions_.bitmaps->directory_bytes))
    name = "bitmap directory";
  lock.unlock();
  if (name != nullptr)
    corrupt("Preventing invalid write on metadata (overlaps with " + std::string(name) + ")");
}

uint64_t Qcow2Node::snapshot_table_bytes() const {
  return snapshots_.empty() ? cluster() : snapshots_bytes_;
}

// Looks up which clusters the snapshots' tables take. To be called when snapshots_ changed.
Task<void> Qcow2Node::note_inactive_tables() {
  snapshots_bytes_ = 0;
  for (const SnapshotEntry& one : snapshots_) snapshots_bytes_ += one.encoded_bytes;
  std::unordered_set<uint64_t> l1_clusters;
  std::unordered_set<uint64_t> l2_clusters;
  uint64_t left = 4 * file_->length() + kMaxInactiveBytes;
  for (const SnapshotEntry& one : snapshots_) {
    const uint64_t bytes = uint64_t{one.l1_entries} * 8;
    const auto end = checked_add(one.l1_offset, bytes);
    // What is nowhere cannot be hit; it is refused when the snapshot is used.
    if (bytes > kMaxL1Bytes || !end || *end > align_up(file_->length(), cluster()) ||
        !is_aligned(one.l1_offset, cluster()))
      continue;
    if (bytes > left)
      throw Error(ErrorKind::kTooLarge,
                  "qcow2: the snapshots' L1 tables are larger than an image of this size explains");
    left -= bytes;
    for (uint64_t c = one.l1_offset / cluster(); c < div_ceil(*end, cluster()); ++c)
      l1_clusters.insert(c);
    if ((overlap_parts_ & kOverlapInactiveL2) == 0) continue;
    const std::vector<uint64_t> entries = co_await read_l1(one);
    for (const uint64_t entry : entries)
      if ((entry & kOffsetMask) != 0 && (entry & kOffsetMask) < file_->length())
        l2_clusters.insert((entry & kOffsetMask) / cluster());
  }
  std::lock_guard lock(tables_mutex_);
  inactive_l1_clusters_ = std::move(l1_clusters);
  inactive_l2_clusters_ = std::move(l2_clusters);
}

}  // namespace cairn
