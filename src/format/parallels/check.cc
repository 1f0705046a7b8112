#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/parallels/node.h"

namespace cairn {

using namespace parallels;

namespace {
// More lines than these are counted and not printed.
constexpr uint64_t kMaxLines = 100;
// How much of the table is read at a time.
constexpr uint64_t kScanBytes = 1 << 20;
constexpr uint64_t kCopyBytes = 1 << 20;
constexpr uint64_t kReportedEntries = 1024;
// Holes beyond these are not remembered; they are filled after the image was opened again.
constexpr size_t kMaxHoles = 1 << 20;

uint32_t entry_of(uint64_t cluster) { return static_cast<uint32_t>(cluster >> 32); }
uint32_t index_of(uint64_t cluster) { return static_cast<uint32_t>(cluster); }
}  // namespace

Task<void> ParallelsNode::each_entry(std::function<void(uint32_t, uint32_t)> visit) {
  std::vector<std::byte> part;
  for (uint64_t index = 0; index < header_.entries;) {
    const uint64_t count = std::min<uint64_t>(kScanBytes / 4, header_.entries - index);
    part.resize(count * 4);
    co_await file_->read(kHeaderBytes + index * 4, part);
    for (uint64_t i = 0; i < count; ++i)
      visit(static_cast<uint32_t>(index + i), load_le<uint32_t>(part, i * 4));
    index += count;
  }
}

// Memory: eight bytes for each entry that is not zero.
Task<ParallelsNode::Survey> ParallelsNode::survey_clusters() {
  Survey found;
  const uint64_t file_end = align_up(file_->length(), kSector);
  uint64_t previous = 0;
  co_await each_entry([&](uint32_t index, uint32_t entry) {
    report_work(context(), "check", index, header_.entries, kReportedEntries);
    const uint64_t host = host_of(entry);
    const uint64_t before = std::exchange(previous, 0);
    if (entry == 0) return;
    const bool outside = host + cluster() > file_end;
    const bool below = host < data_begin_;
    if (outside) found.outside.push_back(index);
    if (below) found.below.push_back(index);
    if (!outside) {
      ++found.allocated;
      if (before != 0 && before + cluster() != host) ++found.fragmented;
      previous = host;
    }
    if (host < file_end && host >= header_.least_data())
      found.clusters.push_back(uint64_t{entry} << 32 | index);
  });
  report_work(context(), "check", header_.entries, header_.entries);
  std::sort(found.clusters.begin(), found.clusters.end());
  uint64_t end = 0;
  std::erase_if(found.clusters, [&](uint64_t one) {
    const uint64_t host = host_of(entry_of(one));
    if (host < end) {
      found.shared.push_back(index_of(one));
      return true;
    }
    end = host + cluster();
    return false;
  });
  std::sort(found.shared.begin(), found.shared.end());
  found.end = std::max(end, data_begin_);
  for (const Range& range : extension_) found.end = std::max(found.end, range.begin + range.length);
  co_return found;
}

// A wrong beginning of the data is replaced by the lowest one that lets clusters be where they are.
void ParallelsNode::settle_data_begin(const Survey& found) {
  if (!data_off_wrong_ && found.below.empty()) return;
  data_begin_ = header_.least_data();
  if (found.clusters.empty()) return;
  const uint64_t first = host_of(entry_of(found.clusters.front()));
  if (first > data_begin_) data_begin_ += (first - data_begin_) % cluster();
}

void ParallelsNode::find_holes(const Survey& found) {
  std::vector<Range> used = extension_;
  std::sort(used.begin(), used.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::map<uint64_t, uint64_t> holes;
  uint64_t at = data_begin_;
  const auto pass = [&](uint64_t begin, uint64_t length) {
    if (begin > at && begin - at >= cluster() && holes.size() < kMaxHoles)
      holes.emplace_hint(holes.end(), at, align_down(begin - at, cluster()));
    if (begin + length > at) at = data_begin_ + align_up(begin + length - data_begin_, cluster());
  };
  auto next = used.begin();
  for (const uint64_t one : found.clusters) {
    const uint64_t host = host_of(entry_of(one));
    for (; next != used.end() && next->begin < host; ++next) pass(next->begin, next->length);
    pass(host, cluster());
  }
  for (; next != used.end(); ++next) pass(next->begin, next->length);
  std::lock_guard lock(holes_mutex_);
  holes_ = std::move(holes);
  end_ = at;
}

Task<CheckResult> ParallelsNode::check(CheckRequest request) {
  if (!read_only()) co_await flush_mapped();
  co_return co_await examine(std::move(request));
}

// Lines and counts are those of QEMU, and besides them what QEMU does not see.
Task<CheckResult> ParallelsNode::examine(CheckRequest request) {
  const bool all = request.repair == CheckRequest::Repair::kAll;
  const bool leaks = all || request.repair == CheckRequest::Repair::kLeaks;
  CheckResult result;
  uint64_t lines = 0;
  const auto finding = [&](bool repaired, const std::string& text) {
    if (!request.report || lines++ > kMaxLines) return;
    if (lines > kMaxLines)
      request.report("More findings are counted, not listed");
    else
      request.report((repaired ? "Repairing " : "ERROR ") + text);
  };
  const auto corruption = [&](const std::string& text) {
    ++result.corruptions;
    finding(all, text);
  };
  const auto numbered = [&](const std::vector<uint32_t>& indices, const char* before,
                            const char* behind) {
    for (const uint32_t index : indices) corruption(fmt::format("{}{}{}", before, index, behind));
  };
  const Survey found = co_await survey_clusters();
  if (unclean_) corruption("image was not closed correctly");
  if (data_off_wrong_) corruption("data_off field has incorrect value");
  if (!extension_fault_.empty()) corruption("format extension: " + extension_fault_);
  numbered(found.outside, "cluster ", " is outside image");
  numbered(found.below, "cluster ", " is below the data area");
  const uint64_t length = align_up(file_->length(), kSector);
  if (length > found.end) {
    finding(leaks, "space leaked at the end of the image " + std::to_string(length - found.end));
    result.leaks = div_ceil(length - found.end, cluster());
  }
  numbered(found.shared, "duplicate offset in BAT entry ", "");
  result.image_end_offset = found.end;
  result.total_clusters = header_.entries;
  result.allocated_clusters = found.allocated;
  result.fragmented_clusters = found.fragmented;

  if (all && result.corruptions != 0) {
    co_await repair(found);
    result.corruptions_fixed = std::exchange(result.corruptions, 0);
  }
  if (leaks && result.leaks != 0) {
    co_await drop_tail(found.end);
    result.leaks_fixed = std::exchange(result.leaks, 0);
  }
  if (all && !found.shared.empty()) co_await separate(found.shared);
  // Nothing is wrong that the mark stands for.
  if (leaks && unclean_ && result.corruptions <= 1) clear_mark_ = true;
  if (all) unclean_ = false;
  co_return result;
}

// Everything but what is shared: that needs room, which is known afterwards.
Task<void> ParallelsNode::repair(const Survey& found) {
  settle_data_begin(found);
  if (data_off_wrong_ || !found.below.empty()) {
    const uint64_t sectors = data_begin_ / kSector;
    if (sectors > UINT32_MAX) throw Error(ErrorKind::kTooLarge, "The data begins too late");
    header_.data_off = static_cast<uint32_t>(sectors);
  }
  if (!changed_.load(std::memory_order_acquire)) co_await begin_change();
  co_await write_header();
  const uint64_t file_end = align_up(file_->length(), kSector);
  uint64_t needed = data_begin_;
  for (const uint32_t index : found.outside) {
    const uint64_t host = host_of(co_await entry(index));
    if (host < file_end)
      needed = std::max(needed, host + cluster());
    else
      co_await set_entries(index, 1, 0, 0);
  }
  // Most of a cluster that the file cuts may be there.
  if (needed > file_->length()) co_await file_->resize({.length = needed, .exact = false});
  for (const uint32_t index : found.below)
    if (host_of(co_await entry(index)) < header_.least_data()) co_await set_entries(index, 1, 0, 0);
  co_await flush_mapped();
  extension_.clear();
  extension_fault_.clear();
  data_off_wrong_ = false;
  // Until they have copies, what is shared is in use as well.
  for (const uint32_t index : found.shared)
    extension_.push_back({host_of(co_await entry(index)), cluster()});
  find_holes(found);
  extension_.clear();
}

Task<void> ParallelsNode::drop_tail(uint64_t end) {
  co_await file_->resize({.length = end});
  co_await file_->flush();
  if (virgin_ != UINT64_MAX) virgin_ = std::min(virgin_, std::max(end, end_));
}

// Gives every cluster that shares its place with another one a copy of its own.
Task<void> ParallelsNode::separate(const std::vector<uint32_t>& shared) {
  AlignedBuffer part(std::min(kCopyBytes, cluster()));
  for (const uint32_t index : shared) {
    const uint64_t from = host_of(co_await entry(index));
    const Room room = co_await take(1);
    for (uint64_t at = 0; at < cluster();) {
      const MutableByteSpan piece =
          part.span().first(std::min<uint64_t>(part.size(), cluster() - at));
      co_await file_->read(from + at, piece);
      co_await file_->write(room.host + at, piece);
      at += piece.size();
    }
    table_->write_after_file_flush();
    co_await set_entries(index, 1, static_cast<uint32_t>(room.host / header_.unit()), 0);
  }
  co_await flush_mapped();
  if (file_->length() > end_) co_await drop_tail(end_);
}

}  // namespace cairn
