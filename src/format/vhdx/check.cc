#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/vhdx/node.h"

namespace cairn {

using namespace vhdx;

namespace {

constexpr uint64_t kReportedEntries = 1024;

}  // namespace

// One walk through the table.
struct VhdxNode::Findings {
  const CheckRequest& request;
  CheckResult& result;
  std::vector<uint64_t> untidy = {};  // entries that are right but for reserved bits
  void error(const std::string& text) {
    ++result.corruptions;
    if (request.report) request.report("ERROR " + text);
  }
};

// Space after the first block that nothing refers to.
std::vector<Room> VhdxNode::gaps() {
  std::vector<Room> result;
  if (parameters_.leave_allocated) return result;
  std::lock_guard lock(free_mutex_);
  for (const auto& [at, bytes] : free_)
    if (at > first_block_) result.push_back({at, bytes});
  return result;
}

// What gaps cost, in blocks: nothing where they are holes of the file.
Task<uint64_t> VhdxNode::leaked_blocks() {
  uint64_t leaked = 0;
  for (const Room& gap : gaps()) {
    const uint64_t end = std::min(gap.offset + gap.bytes, file_->length());
    uint64_t held = 0;
    for (uint64_t at = gap.offset; at < end;) {
      const Extent extent = co_await file_->extent_at(at, end - at);
      if (extent.data) held += extent.length;
      at += extent.length;
    }
    leaked += held / block_bytes();
  }
  co_return leaked;
}

Task<CheckResult> VhdxNode::check(CheckRequest request) {
  CheckResult result;
  Findings findings{request, result};
  const bool repair = request.repair == CheckRequest::Repair::kAll && !read_only();
  if (replayed_ && request.repair != CheckRequest::Repair::kNone) {
    ++result.corruptions_fixed;
    replayed_ = false;
  }
  if (pending_log_ && request.report)
    request.report("The log is not empty; what it holds was taken into account.");
  for (uint64_t index = 0; index < geometry_.entries; ++index) {
    report_work(context(), "check", index, geometry_.entries, kReportedEntries);
    co_await check_table_entry(index, findings);
  }
  report_work(context(), "check", geometry_.entries, geometry_.entries);
  const bool blocks_good = result.corruptions == findings.untidy.size();
  if (journal_->other_damaged()) findings.error("One of the headers is damaged.");
  for (int i = 0; i < 2; ++i)
    if (region_damaged_[i]) findings.error(fmt::format("Region table {} is damaged.", i + 1));
  if (log_damaged_) findings.error("The log is damaged.");
  // Others neither look for space that is lost nor give any back.
  if (request.extensions) result.leaks = co_await leaked_blocks();
  if (result.leaks != 0 && request.report)
    request.report(fmt::format("Leaked space for {} blocks.", result.leaks));

  // Nothing is changed where blocks are wrong: no repair could know what was meant.
  if (repair && result.corruptions != 0 && blocks_good) {
    co_await repair_tables(findings.untidy);
    result.corruptions_fixed += result.corruptions;
    result.corruptions = 0;
  }
  if (request.repair != CheckRequest::Repair::kNone && !read_only() && result.leaks != 0 &&
      result.corruptions == 0) {
    const uint64_t left = co_await release_leaks();
    result.leaks_fixed = result.leaks - std::min(left, result.leaks);
    result.leaks = left;
  }
  // Others count nothing for this format.
  if (!request.extensions) {
    result.total_clusters = 0;
    result.allocated_clusters = 0;
    result.image_end_offset = 0;
  }
  co_return result;
}

Task<void> VhdxNode::check_table_entry(uint64_t index, Findings& findings) {
  const bool bitmap = index % (geometry_.chunk_blocks + 1) == geometry_.chunk_blocks;
  const uint64_t block = index - index / (geometry_.chunk_blocks + 1);
  if ((bitmap && !parameters_.has_parent) || (!bitmap && block >= geometry_.blocks)) co_return;
  const Entry entry = co_await entry_at(index);
  const std::string name = "VHDX BAT entry " + std::to_string(index);
  if (!bitmap) ++findings.result.total_clusters;
  const bool data = bitmap ? entry.state() == kPresent : entry.has_data();
  if (bitmap && entry.state() != kPresent && entry.state() != kNotPresent)
    findings.error(fmt::format("{} of a sector bitmap has state {}.", name,
                               static_cast<unsigned>(entry.state())));
  if (!bitmap && (entry.state() == kReserved || entry.state() == kOldUnmapped ||
                  (entry.state() == kPartial && !parameters_.has_parent)))
    findings.error(
        fmt::format("{} has the invalid state {}.", name, static_cast<unsigned>(entry.state())));
  if (entry.reserved_bits() || (entry.state() == kZeroBlock && entry.offset() != 0)) {
    findings.error(name + " has reserved bits set.");
    findings.untidy.push_back(index);
  }
  if (!data) co_return;
  if (!bitmap) ++findings.result.allocated_clusters;
  const uint64_t bytes = bitmap ? kBitmapBlockBytes : block_bytes();
  const uint64_t needed = bitmap ? bytes : std::min(bytes, parameters_.size - block * bytes);
  const Room place{entry.offset(), bytes};
  if (!check_place(name, place, needed, findings)) co_return;
  if (entry.state() == kPartial && parameters_.has_parent) {
    const Entry there = co_await entry_at(geometry_.bitmap_index(block / geometry_.chunk_blocks));
    if (there.state() != kPresent)
      findings.error(name + " is present in part, without a sector bitmap.");
  }
  check_overlaps(name, place, findings);
}

// False when the end of PLACE, which the entry NAME has, is no number. The file must have its first
// NEEDED bytes.
bool VhdxNode::check_place(const std::string& name, Room place, uint64_t needed,
                           Findings& findings) const {
  const uint64_t file_end = file_->length();
  const auto past_end = [&](const char* which, uint64_t offset) {
    findings.error(fmt::format(
        "{} {} offset {} points after end of file ({}). Image has probably been truncated.", name,
        which, offset, file_end));
  };
  const uint64_t begin = place.offset;
  if (begin > static_cast<uint64_t>(INT64_MAX) - place.bytes) {
    findings.error(name + " offset overflow.");
    return false;
  }
  if (begin >= file_end) past_end("start", begin);
  if (begin + needed > file_end) past_end("end", begin + place.bytes);
  if (begin < kMiB) findings.error(name + " points into the headers.");
  if (shared_.contains(begin)) findings.error(name + " shares its space with another block.");
  return true;
}

void VhdxNode::check_overlaps(const std::string& name, Room place, Findings& findings) const {
  const uint64_t end = place.offset + place.bytes;
  const auto check_region = [&](uint64_t from, uint64_t length) {
    if (place.offset < from + length && from < end)
      findings.error(fmt::format("{} overlaps with the region at {}.", name, from));
  };
  check_region(journal_->header().log_offset, journal_->header().log_length);
  for (const Region& region : regions_.regions) check_region(region.offset, region.length);
  findings.result.image_end_offset = std::max(findings.result.image_end_offset, end);
}

// Writes headers, log and region tables again, and the entries UNTIDY without their reserved bits.
Task<void> VhdxNode::repair_tables(std::vector<uint64_t> untidy) {
  damage_.clear();
  co_await journal_->begin(false);
  if (log_damaged_) {
    co_await journal_->empty_log();
    log_damaged_ = false;
  }
  std::vector<std::byte> encoded;
  const std::vector<PagePtr> pages = co_await region_pages(regions_, encoded);
  pages_->change([&] {
    size_t at = 0;
    for (const PagePtr& page : pages) {
      pages_->set_bytes(page, 0, ByteSpan(encoded).subspan(at, kSectorBytes));
      at = (at + kSectorBytes) % kTableBytes;
    }
  });
  co_await commit();
  region_damaged_[0] = region_damaged_[1] = false;
  for (const uint64_t index : untidy) {
    const PagePtr page = co_await table_page(index);
    const Entry before = co_await entry_at(index);
    const bool keeps = before.state() != kZeroBlock && before.state() != kNotPresent;
    pages_->change(
        [&] { set_entry(page, index, Entry::make(before.state(), keeps ? before.offset() : 0)); });
    if (pages_->dirty() > 64) co_await commit();
  }
  co_await commit();
  co_await journal_->empty_log();
}

// The blocks that are still lost afterwards.
Task<uint64_t> VhdxNode::release_leaks() {
  co_await journal_->begin(false);
  co_await trim_file();
  // Free space between blocks is given back to the host; later blocks take it first.
  for (const Room& gap : gaps()) co_await file_->discard(gap.offset, gap.bytes);
  const uint64_t left = co_await leaked_blocks();
  co_return left;
}

}  // namespace cairn
