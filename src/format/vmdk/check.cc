#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "codec/codec.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

// One run over the tables of all extents.
class VmdkChecker {
 public:
  VmdkChecker(VmdkNode& node, CheckRequest request) : node_(node), request_(std::move(request)) {}

  Task<CheckResult> run() {
    if (node_.lost_footer_) co_await check_footer();
    for (const auto& part : node_.parts_) {
      part_ = part.get();
      if (part->kind == VmdkNode::Kind::kSparse || part->kind == VmdkNode::Kind::kSeSparse)
        co_await check_part();
    }
    Node* below = node_.backing();
    while (below != nullptr && below->filtered() != nullptr) below = below->filtered();
    const auto* parent = dynamic_cast<const VmdkNode*>(below);
    if (below != nullptr && (parent == nullptr || parent->cid() != node_.descriptor_.parent_cid()))
      corruption("the content ID of the backing file '" + below->filename() +
                 "' is not the parentCID");
    co_return result_;
  }

 private:
  using Place = VmdkNode::Place;

  void corruption(const std::string& text) {
    ++result_.corruptions;
    if (request_.report) request_.report("ERROR: " + text);
  }
  void leak(uint64_t count, const std::string& text) {
    result_.leaks += count;
    if (request_.report) request_.report("Leaked: " + text);
  }
  std::string where(uint64_t grain) const {
    return fmt::format("{}: sector {}", part_->name, grain * part_->grain / kSector);
  }
  bool repairs_all() const { return request_.repair == CheckRequest::Repair::kAll; }
  void repaired() {
    --result_.corruptions;
    ++result_.corruptions_fixed;
  }
  bool repairs() const { return request_.repair != CheckRequest::Repair::kNone; }

  Task<void> check_footer() {
    uint64_t end = 0;
    VmdkNode::Part& part = *node_.parts_.front();
    const uint64_t grains = co_await node_.scan_stream(part, false, &end);
    corruption(
        fmt::format("the stream has no footer: {} grains were found before byte {}", grains, end));
    if (!repairs_all() || !part.writable) co_return;
    co_await node_.rescue_stream();
    repaired();
  }

  Task<void> check_directories() {
    using Lost = VmdkNode::Part::Lost;
    if (part_->lost == Lost::kNone) co_return;
    corruption(part_->name + ": the " + (part_->lost == Lost::kRedundant ? "redundant " : "") +
               "grain directory is outside the file");
    if (!repairs_all() || !part_->writable) co_return;
    co_await node_.renew_directory(*part_);
    repaired();
  }

  Task<void> check_part() {
    co_await check_directories();
    grains_.clear();
    tables_.clear();
    const uint64_t grains = div_ceil(part_->length, part_->grain);
    result_.total_clusters += grains;
    if (part_->header.unclean && request_.report)
      request_.report(part_->name + ": was not closed by the program that wrote it");
    for (uint64_t table = 0; table < part_->table_count; ++table) {
      // A small file may have millions of them.
      if (!has_table(table)) continue;
      const uint64_t first = table * part_->per_table;
      report_work(node_.context(), "check", table, part_->table_count);
      co_await check_table(table, std::min(part_->per_table, grains - first));
    }
    report_work(node_.context(), "check", part_->table_count, part_->table_count);
    std::sort(grains_.begin(), grains_.end());
    check_overlaps();
    co_await check_leaks();
  }

  bool has_table(uint64_t table) const {
    constexpr auto kOrder = std::memory_order_relaxed;
    return part_->gd[table].load(kOrder) != 0 ||
           (part_->redundant && part_->rgd[table].load(kOrder) != 0);
  }

  // The entries of a table; nothing when it cannot be read.
  Task<bool> read_table(uint64_t sector, uint64_t count, std::vector<uint64_t>& entries) {
    const uint64_t width = part_->kind == VmdkNode::Kind::kSeSparse ? 8 : 4;
    if (sector * kSector < part_->data_begin || sector > part_->file->length() / kSector ||
        sector * kSector + part_->table_bytes > align_up(part_->file->length(), kSector))
      co_return false;
    tables_.push_back(sector);
    std::vector<std::byte> bytes(count * width);
    co_await part_->file->read(sector * kSector, bytes);
    entries.resize(count);
    for (uint64_t i = 0; i < count; ++i)
      entries[i] = width == 8 ? load_le<uint64_t>(bytes, i * 8) : load_le<uint32_t>(bytes, i * 4);
    co_return true;
  }

  Task<void> check_table(uint64_t table, uint64_t count) {
    const uint64_t first = table * part_->per_table;
    uint64_t sector = 0;
    try {
      sector = node_.table_sector(*part_, table);
    } catch (const Error&) {
      corruption("could not get cluster_offset for " + where(first));
      co_return;
    }
    const uint64_t copy = part_->redundant ? part_->rgd[table].load() : 0;
    std::vector<uint64_t> entries;
    std::vector<uint64_t> copies;
    bool readable = true;
    bool copy_readable = true;
    if (sector != 0) readable = co_await read_table(sector, count, entries);
    if (copy != 0) copy_readable = co_await read_table(copy, count, copies);
    if (!readable) {
      corruption("could not get cluster_offset for " + where(first) +
                 ": its grain table is outside the file");
      if (copy == 0 || !copy_readable) co_return;
      entries = copies;
    }
    if (!copy_readable) {
      corruption(where(first) + ": the redundant grain table is outside the file");
      copies = entries;
    }
    const bool renewable = readable ? sector != 0 && !copy_readable : true;
    if (renewable && repairs_all() && part_->writable) {
      co_await node_.renew_table(*part_, table, readable);
      tables_.push_back(readable ? part_->rgd[table].load() : part_->gd[table].load());
      repaired();
    }
    entries.resize(count);
    for (uint64_t i = 0; i < count; ++i)
      if (entries[i] != 0) co_await check_entry(first + i, entries[i]);
    if (!part_->redundant) co_return;
    copies.resize(count);
    for (uint64_t i = 0; i < count; ++i)
      if (entries[i] != copies[i])
        co_await settle(first + i, entries[i], copies[i], sector != 0 && copy != 0);
  }

  // The copies of an entry differ. One that is there wins over one that is not.
  Task<void> settle(uint64_t grain, uint64_t entry, uint64_t copy, bool both) {
    const bool simple = entry == 0 || copy == 0;
    const std::string text = where(grain) + ": the two grain tables differ";
    // A place that only the second copy names is not free: it must not be cut off. Compressed
    // grains have lengths of their own, and nothing is cut off after them.
    if (entry == 0 && !part_->compressed && usable(copy, grain)) {
      const Place place = node_.decode(*part_, copy, grain);
      if (place.kind == Place::Kind::kData)
        grains_.push_back({place.host / kSector, div_ceil(part_->grain, kSector)});
    }
    if (!simple) {
      corruption(text);
    } else if (!repairs() || !both || !part_->writable || (entry == 0 && !usable(copy, grain))) {
      leak(1, text);
    } else {
      co_await node_.begin_change();
      part_->touched.store(true);
      co_await node_.set_entries(*part_, grain, 1, std::max(entry, copy), 0);
      ++result_.leaks_fixed;
    }
  }

  bool usable(uint64_t entry, uint64_t grain) const {
    try {
      node_.decode(*part_, entry, grain);
    } catch (const Error&) {
      return false;
    }
    return true;
  }

  Task<void> check_entry(uint64_t grain, uint64_t entry) {
    Place place;
    try {
      place = node_.decode(*part_, entry, grain);
    } catch (const Error& error) {
      corruption(where(grain) + ": " +
                 (error.hints().empty() ? error.message() : error.hints().front().text));
      co_return;
    }
    if (place.kind != Place::Kind::kData) co_return;
    ++result_.allocated_clusters;
    uint64_t bytes = part_->grain;
    if (part_->compressed) {
      ++result_.compressed_clusters;
      bytes = co_await check_compressed(grain, place.host);
    } else if (place.host + part_->grain > part_->file->length() &&
               grain + 1 != div_ceil(part_->length, part_->grain)) {
      // Only what ends the disk may be cut by the end of the file.
      const uint64_t missing = place.host + part_->grain - part_->file->length();
      if (missing >= part_->grain) corruption(where(grain) + ": points after EOF");
    }
    grains_.push_back({place.host / kSector, div_ceil(bytes, kSector)});
  }

  // Gives the bytes that the grain takes.
  Task<uint64_t> check_compressed(uint64_t grain, uint64_t host) {
    std::vector<std::byte> head(16);
    uint64_t bytes = kSector;
    if (part_->markers) {
      co_await part_->file->read(host, head);
      const Marker marker = Marker::decode(head);
      bytes = marker.bytes + uint64_t{Marker::kDataOffset};
      if (marker.value != grain * part_->grain / kSector)
        corruption(fmt::format("{}: the marker before the data names sector {}", where(grain),
                               marker.value));
      if (marker.bytes == 0 || bytes > 2 * part_->grain) bytes = kSector;
    }
    const uint64_t from = grain * part_->grain;
    AlignedBuffer out(std::min(part_->grain, part_->length - from));
    Mapping mapping;
    mapping.token = host;
    bool damaged = false;
    try {
      co_await node_.read_encoded(mapping, part_->begin + from, out.span());
    } catch (const Error&) {
      damaged = true;
    }
    if (damaged) corruption(where(grain) + ": the compressed grain cannot be decoded");
    co_return bytes;
  }

  void check_overlaps() {
    for (size_t i = 1; i < grains_.size(); ++i) {
      const auto& before = grains_[i - 1];
      if (grains_[i].first >= before.first + before.second) continue;
      corruption(
          fmt::format("{}: two grains share the file's sector {}", part_->name, grains_[i].first));
    }
    const uint64_t table_sectors = div_ceil(part_->table_bytes, kSector);
    for (const uint64_t table : tables_) {
      const auto behind =
          std::upper_bound(grains_.begin(), grains_.end(), table + table_sectors - 1,
                           [](uint64_t at, const auto& grain) { return at < grain.first; });
      if (behind == grains_.begin()) continue;
      const auto& grain = *std::prev(behind);
      if (grain.first + grain.second > table)
        corruption(fmt::format("{}: the grain at the file's sector {} overlaps a grain table",
                               part_->name, grain.first));
    }
  }

  // Room of whole grains to which nothing points.
  Task<void> check_leaks() {
    if (part_->compressed || part_->kind == VmdkNode::Kind::kSeSparse) co_return;
    auto used = grains_;
    for (const uint64_t table : tables_) used.push_back({table, part_->table_bytes / kSector});
    const uint64_t directory = div_ceil(part_->table_count * 4, kSector);
    used.push_back({part_->gd_offset / kSector, directory});
    if (part_->redundant) used.push_back({part_->rgd_offset / kSector, directory});
    std::sort(used.begin(), used.end());
    const uint64_t step = part_->grain / kSector;
    uint64_t end = std::max(part_->header.overhead, div_ceil(part_->data_begin, kSector));
    for (const auto& [first, sectors] : used) {
      if (first > end && (first - end) / step != 0)
        leak((first - end) / step, fmt::format("{}: {} grains from the file's sector {}",
                                               part_->name, (first - end) / step, end));
      end = std::max(end, first + sectors);
    }
    const uint64_t file_end = part_->file->length() / kSector;
    if (file_end <= end || (file_end - end) / step == 0) co_return;
    const uint64_t count = (file_end - end) / step;
    if (repairs() && part_->writable) {
      co_await node_.begin_change();
      part_->touched.store(true);
      std::lock_guard lock(part_->allocating);
      part_->next = align_up(end * kSector, part_->grain);
    }
    if (!repairs() || !part_->writable) {
      leak(count, fmt::format("{}: {} grains at the end of the file", part_->name, count));
      co_return;
    }
    co_await part_->file->resize({.length = part_->next});
    result_.leaks_fixed += count;
  }

  VmdkNode& node_;
  CheckRequest request_;
  CheckResult result_;
  VmdkNode::Part* part_ = nullptr;
  std::vector<std::pair<uint64_t, uint64_t>> grains_;  // first sector, sectors
  std::vector<uint64_t> tables_;
};

Task<CheckResult> VmdkNode::check(CheckRequest request) {
  VmdkChecker checker(*this, std::move(request));
  CheckResult result = co_await checker.run();
  if (changed_.load()) co_await flush_mapped();
  // The tools of other makers count nothing for this format; neither do their outputs.
  result.total_clusters = 0;
  result.allocated_clusters = 0;
  result.compressed_clusters = 0;
  co_return result;
}

}  // namespace cairn
