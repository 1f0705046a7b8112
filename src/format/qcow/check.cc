#include <fmt/core.h>

#include <unordered_set>

#include "base/arith.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/qcow/node.h"

namespace cairn {

using namespace qcow;

namespace {

// Which sectors of the file are in use; a bit each, so longer files are not looked at this way.
class UsedSectors {
 public:
  static constexpr uint64_t kMostBytes = uint64_t{1} << 40;
  explicit UsedSectors(uint64_t file_bytes)
      : bits_(file_bytes <= kMostBytes ? div_ceil(file_bytes, kSector) : 0) {}
  bool knows() const { return !bits_.empty(); }
  // False when one of them was in use already, or is past the end.
  bool take(uint64_t offset, uint64_t length) {
    bool fresh = true;
    for (uint64_t i = offset / kSector; i < div_ceil(offset + length, kSector); ++i) {
      if (i >= bits_.size()) return false;
      fresh = fresh && !bits_[i];
      bits_[i] = true;
    }
    return fresh;
  }

 private:
  std::vector<bool> bits_;
};

}  // namespace

// Tables and clusters must be where they can be, and nothing in two uses. QEMU cannot check this
// format, which counts nothing: space that nobody uses is not looked for.
Task<CheckResult> QcowNode::check(CheckRequest request) {
  CheckResult result;
  const auto finding = [&](const std::string& text) {
    ++result.corruptions;
    if (request.report) request.report("ERROR " + text);
  };
  const auto at_byte = [](uint64_t byte) { return " of byte " + std::to_string(byte); };
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  const uint64_t file_end = align_up(std::max(file_->length(), end_), kSector);
  UsedSectors used(file_end);
  if (!used.knows() && request.report)
    request.report("The file is too long to search for space that is used twice");
  result.total_clusters = div_ceil(length(), cluster());
  result.image_end_offset = std::min(header_.l1_end(), file_end);
  if (used.knows()) used.take(0, std::min(align_up(header_.l1_end(), kSector), file_end));
  std::unordered_set<uint64_t> tables;
  uint64_t next = 0;  // where the cluster after the one before would be
  for (uint64_t index = 0; index < l1_.size(); ++index) {
    const uint64_t table = l1_entry(index);
    if (table == 0) continue;
    report_work(context(), "check", index, l1_.size());
    const uint64_t begin = index * header_.l2_range();
    try {
      check_table(table, index);
    } catch (const Error& error) {
      finding(error.message());
      continue;
    }
    if (table > file_end - std::min(header_.l2_bytes(), file_end)) {
      finding(
          fmt::format("the L2 table at {}{} is past the end of the file", table, at_byte(begin)));
      continue;
    }
    if (!tables.insert(table).second || (used.knows() && !used.take(table, header_.l2_bytes()))) {
      finding(fmt::format("the L2 table at {} has a second use{}", table, at_byte(begin)));
      continue;
    }
    result.image_end_offset = std::max(result.image_end_offset, table + header_.l2_bytes());
    for (uint64_t at = begin; at < std::min(begin + header_.l2_range(), length());
         at += cluster()) {
      const Slice held = co_await slice(table, at);
      const uint64_t entry = held.ref.load_entry((at - held.first) / cluster());
      if (entry == 0) continue;
      ++result.allocated_clusters;
      if ((entry & CompressedPlace::kFlag) != 0) {
        ++result.compressed_clusters;
        ++result.fragmented_clusters;
        const CompressedPlace place = CompressedPlace::decode(entry, header_.cluster_bits);
        if (place.length == 0 || place.offset > file_end || place.length > file_end - place.offset)
          finding("the compressed cluster" + at_byte(at) + " is past the end of the file");
        else if (header_.overlaps(place.offset, place.length))
          finding("the compressed cluster" + at_byte(at) + " overlaps the header or the L1 table");
        else
          result.image_end_offset = std::max(result.image_end_offset, place.offset + place.length);
        continue;
      }
      if (next != 0 && entry != next) ++result.fragmented_clusters;
      next = entry + cluster();
      if (entry % kSector != 0 || entry >= file_->length() || header_.overlaps(entry, cluster()))
        finding(fmt::format("the cluster{} cannot be at {}", at_byte(at), entry));
      else if (used.knows() && entry < file_end &&
               !used.take(entry, std::min(cluster(), file_end - entry)))
        finding(fmt::format("the cluster{} at {} has a second use", at_byte(at), entry));
      else
        result.image_end_offset = std::max(result.image_end_offset, entry + cluster());
    }
  }
  report_work(context(), "check", l1_.size(), l1_.size());
  co_return result;
}

}  // namespace cairn
