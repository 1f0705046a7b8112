#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "base/arith.h"
#include "base/utf16.h"
#include "block/context.h"
#include "format/vhdx/log_reader.h"
#include "format/vhdx/node.h"
#include "format/vhdx/overlay.h"

namespace cairn {

using namespace vhdx;

namespace {
constexpr size_t kScanBytes = 1 << 20;
constexpr size_t kCreatorBytes = 512;
}  // namespace

Task<void> VhdxNode::load(OpenContext& request) {
  begin_opening(request.flags);
  CurrentHeader header = co_await load_header(request.flags.salvage);
  if (!header.header.log_guid.is_null() && !log_damaged_) co_await replay(header, request);
  pages_ = std::make_unique<Pages>(*file_);
  journal_ = std::make_unique<Journal>(*file_, *pages_, header);
  has_log_ = header.header.log_length != 0;
  if (replayed_) {
    // Nothing but the log itself was replayed: that is to count no more.
    journal_->forget_log();
    co_await journal_->write_headers();
  }
  co_await load_regions(header.header, request.flags.salvage);
  co_await load_metadata();
  set_length(parameters_.size);
  set_unit(block_bytes());
  co_await scan_table(request.flags.for_check || request.flags.salvage);
  if (parameters_.has_parent)
    co_await open_parent(request);
  else
    co_await request.open_backing({}, {});
  end_opening();
}

Task<CurrentHeader> VhdxNode::load_header(bool salvage) {
  std::vector<std::byte> start(kSignature.size() + kCreatorBytes);
  co_await file_->read(0, start);
  if (file_->length() < kSignature.size() || load_text(start, 0, kSignature.size()) != kSignature) {
    // Its own words are those of a driver that gives none.
    if (!context().profile.explanations)
      throw Error::system(EINVAL, "Could not open '" + file_->filename() + "'");
    throw Error(ErrorKind::kInvalid, "not a VHDX file");
  }
  creator_ = from_utf16(ByteSpan(start).subspan(kSignature.size()), false);
  std::vector<std::byte> both[2] = {std::vector<std::byte>(kHeaderBytes),
                                    std::vector<std::byte>(kHeaderBytes)};
  for (int i = 0; i < 2; ++i) co_await file_->read(kHeaderOffsets[i], both[i]);
  const CurrentHeader result = choose_header(both[0], both[1]);
  if (result.other_damaged)
    context().warn(
        fmt::format("VHDX: header {} is damaged; the other one counts", 2 - result.slot));
  check_log_place(result.header);
  const bool outside = result.header.log_offset > file_->length() ||
                       result.header.log_length > file_->length() - result.header.log_offset;
  if (outside && salvage) {
    log_damaged_ = !result.header.log_guid.is_null();
    if (log_damaged_)
      context().warn("VHDX: the log is past the end of the file; what it held may be missing");
    co_return result;
  }
  if (outside && (!read_only() || !result.header.log_guid.is_null()))
    throw Error(ErrorKind::kInvalid,
                fmt::format("VHDX: the log of {} bytes at {} extends past the end of the file",
                            result.header.log_length, result.header.log_offset));
  co_return result;
}

Task<void> VhdxNode::replay(CurrentHeader& header, const OpenContext& request) {
  LogReader reader(*file_, header.header);
  const std::vector<LogEntry> entries = co_await reader.active();
  if (entries.empty()) {
    log_damaged_ = true;
    if (!read_only() && !request.flags.for_check)
      throw Error(ErrorKind::kCorrupt, "VHDX: the log is damaged: the image can only be read")
          .hint("`check -r all` gives the log up if everything else is good.");
    context().warn("VHDX: the log is damaged; what it held may be missing");
    co_return;
  }
  co_await reader.check_targets(entries);
  if (read_only() && !context().profile.replay_in_memory) {
    const std::string name = "'" + file_->filename() + "'";
    throw Error(ErrorKind::kInvalid,
                "VHDX image file " + name +
                    " opened read-only, but contains a log that needs to be replayed")
        .hint("To replay the log, run:")
        .hint("qemu-img check -r all " + name);
  }
  if (read_only()) {
    auto overlay =
        std::make_shared<OverlayNode>(context(), child("file")->shared_from_this(), header.header);
    co_await overlay->load(entries);
    overlay_ = overlay;
    file_ = overlay_.get();
    pending_log_ = true;
    co_return;
  }
  // The file is about to change.
  Pages none(*file_);
  Journal before(*file_, none, header);
  co_await before.write_headers();
  std::vector<std::byte> sector(kSectorBytes);
  for (const LogEntry& entry : entries)
    co_await reader.each_target(
        entry, [&](const LogDescriptor& descriptor, uint64_t place) -> Task<void> {
          if (descriptor.zero) {
            if (descriptor.length != 0)
              co_await file_->write_zeroes(descriptor.offset, descriptor.length);
            co_return;
          }
          co_await reader.read_data(descriptor, place, sector);
          co_await file_->write(descriptor.offset, sector);
        });
  if (file_->length() < entries.back().last_file)
    co_await file_->resize({.length = entries.back().last_file, .exact = false});
  co_await file_->flush();
  replayed_ = true;
  header = co_await load_header(false);
}

Task<void> VhdxNode::load_regions(const Header& header, bool salvage) {
  std::optional<RegionTable> good;
  std::vector<std::byte> bytes(kTableBytes);
  for (int i = 0; i < 2; ++i) {
    co_await file_->read(kRegionOffsets[i], bytes);
    const std::optional<RegionTable> table = RegionTable::decode(bytes);
    region_damaged_[i] = !table;
    if (table && !good) good = table;
  }
  if (!good) throw Error(ErrorKind::kInvalid, "VHDX: both region tables are damaged");
  if (region_damaged_[0] || region_damaged_[1])
    context().warn(std::string("VHDX: region table ") + (region_damaged_[0] ? "1" : "2") +
                   " is damaged; the other one counts");
  regions_ = *good;
  regions_.check(salvage ? static_cast<uint64_t>(INT64_MAX) : align_up(file_->length(), kMiB),
                 header);
  table_ = regions_.get(kBatRegion);
}

Task<void> VhdxNode::load_metadata() {
  const Region region = regions_.get(kMetadataRegion);
  if (region.length < kTableBytes)
    throw Error(ErrorKind::kInvalid, "VHDX: the metadata region has no room for its table");
  std::vector<std::byte> bytes(kTableBytes);
  co_await read_table(*file_, region.offset, bytes);
  const std::map<ItemId, Item> items = decode_items(bytes, region.length);
  const auto get = [&](ItemId id, size_t length) -> Task<std::vector<std::byte>> {
    std::vector<std::byte> value(length);
    co_await read_table(*file_, region.offset + items.at(id).offset, value);
    co_return value;
  };
  std::vector<std::byte> value = co_await get(ItemId::kParameters, 8);
  parameters_.block_bytes = load_le<uint32_t>(value, 0);
  const auto flags = load_le<uint32_t>(value, 4);
  parameters_.has_parent = (flags & 2) != 0;
  parameters_.leave_allocated = (flags & 1) != 0 && !parameters_.has_parent;
  value = co_await get(ItemId::kSize, 8);
  parameters_.size = load_le<uint64_t>(value, 0);
  value = co_await get(ItemId::kDiskId, 16);
  parameters_.disk_id = Uuid::load_guid(value, 0);
  value = co_await get(ItemId::kLogicalSector, 4);
  parameters_.logical_sector = load_le<uint32_t>(value, 0);
  value = co_await get(ItemId::kPhysicalSector, 4);
  parameters_.physical_sector = load_le<uint32_t>(value, 0);
  parameters_.check();
  size_item_ = region.offset + items.at(ItemId::kSize).offset;
  if (parameters_.has_parent) {
    if (!items.contains(ItemId::kParent))
      throw Error(ErrorKind::kInvalid, "VHDX: the image has a parent, but no parent locator");
    value = co_await get(ItemId::kParent, items.at(ItemId::kParent).length);
    locator_ = decode_locator(value);
    if (!locator_.contains("parent_linkage"))
      throw Error(ErrorKind::kInvalid, "VHDX: the parent locator has no parent_linkage");
  }
  geometry_ = Geometry::of(parameters_);
  if (geometry_.entries * 8 > table_.length)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("VHDX: the block allocation table of {} bytes is too small for {} entries",
                    table_.length, geometry_.entries));
}

// Every block is in the file and in nobody's way. A block of which only what is past the end of
// the disk is missing is whole.
Task<void> VhdxNode::scan_table(bool tolerant) {
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  const Header& header = journal_->header();
  if (header.log_length != 0)
    taken.emplace_back(header.log_offset, header.log_offset + header.log_length);
  for (const Region& region : regions_.regions)
    taken.emplace_back(region.offset, region.offset + region.length);
  std::sort(taken.begin(), taken.end());
  const uint64_t file_end = file_->length();
  std::vector<Room> used;
  std::vector<std::byte> part;
  for (uint64_t done = 0; done < geometry_.entries;) {
    const uint64_t count = std::min<uint64_t>(kScanBytes / 8, geometry_.entries - done);
    part.resize(count * 8);
    co_await read_table(*file_, table_.offset + done * 8, part);
    for (uint64_t i = 0; i < count; ++i) {
      const Entry entry{load_le<uint64_t>(part, i * 8)};
      if (entry.value == 0) continue;
      const uint64_t index = done + i;
      const bool bitmap = index % (geometry_.chunk_blocks + 1) == geometry_.chunk_blocks;
      if (bitmap && !parameters_.has_parent) continue;
      const uint64_t block = index - index / (geometry_.chunk_blocks + 1);
      if (!bitmap && block >= geometry_.blocks) continue;
      const uint64_t begin = entry.offset();
      const uint64_t bytes = bitmap ? kBitmapBlockBytes : block_bytes();
      const bool data = bitmap ? entry.state() == kPresent : entry.has_data();
      if (!data) {
        // Space that an unmapped block keeps is not ours.
        if (begin >= kMiB && begin < file_end && !read_only()) used.push_back({begin, bytes});
        continue;
      }
      const std::string name = "VHDX BAT entry " + std::to_string(index);
      std::string wrong;
      uint64_t needed = bytes;
      if (!bitmap) needed = std::min(bytes, parameters_.size - block * block_bytes());
      if (begin > static_cast<uint64_t>(INT64_MAX) - bytes)
        wrong = name + " offset overflow.";
      else if (begin >= file_end)
        wrong = fmt::format(
            "{} start offset {} points after end of file ({}). Image has probably been truncated.",
            name, begin, file_end);
      else if (begin + needed > file_end)
        wrong = fmt::format(
            "{} end offset {} points after end of file ({}). Image has probably been truncated.",
            name, begin + bytes, file_end);
      if (!wrong.empty()) {
        if (!tolerant) throw Error(ErrorKind::kInvalid, wrong);
        damage_ = wrong;
        continue;
      }
      if (begin < kMiB || entry.reserved_bits()) damage_ = name + " is not valid";
      const auto above = std::lower_bound(taken.begin(), taken.end(),
                                          std::pair<uint64_t, uint64_t>(begin + bytes, 0));
      if (above != taken.begin() && std::prev(above)->second > begin) {
        const auto [from, to] = *std::prev(above);
        if (!tolerant) check_disjoint(begin, begin + bytes, from, to);
        damage_ = name + " overlaps with other structures";
      }
      used.push_back({begin, bytes});
      if (!bitmap) first_block_ = std::min(first_block_, begin);
    }
    done += count;
  }
  std::sort(used.begin(), used.end(),
            [](const Room& a, const Room& b) { return a.offset < b.offset; });
  uint64_t covered = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    if (i != 0 && used[i].offset < covered) {
      shared_.insert(used[i].offset);
      shared_.insert(used[i - 1].offset);
      damage_ = "two blocks share the space at " + std::to_string(used[i].offset);
    }
    covered = std::max(covered, used[i].offset + used[i].bytes);
  }
  if (read_only() && !tolerant) co_return;
  for (const auto& [from, to] : taken) used.push_back({from, to - from});
  note_used(std::move(used));
}

// The parent as a path that this system understands; empty when the locator has none.
std::string VhdxNode::name_of_parent() const {
  std::string path;
  for (const char* key : {"relative_path", "absolute_win32_path", "volume_path"}) {
    const auto found = locator_.find(key);
    if (found == locator_.end()) continue;
    path = found->second;
    const std::string_view last = std::string_view(path).substr(path.find_last_of("/\\:") + 1);
    // Paths of Windows mean nothing here; the parent may have come along.
    if (key != std::string_view("relative_path")) return std::string(last);
    if (path.starts_with("\\\\") || path.starts_with("//") || path.find(':') != std::string::npos)
      return std::string(last);
    std::replace(path.begin(), path.end(), '\\', '/');
    while (path.starts_with("./")) path.erase(0, 2);
    return path;
  }
  return {};
}

Task<void> VhdxNode::open_parent(OpenContext& request) {
  parent_ = name_of_parent();
  if (parent_.empty())
    throw Error(ErrorKind::kInvalid, "VHDX: the parent locator does not say where the parent is");
  NodePtr parent = co_await request.open_backing(parent_, "vhdx");
  if (!parent) co_return;
  const auto* below = dynamic_cast<const VhdxNode*>(parent.get());
  add_child("backing", std::move(parent), ChildRole::kBacking);
  if (below == nullptr) co_return;
  if (below->parameters().logical_sector != parameters_.logical_sector)
    throw Error(ErrorKind::kInvalid,
                "VHDX: the parent '" + parent_ + "' has sectors of another size");
  bool same = false;
  for (const char* key : {"parent_linkage", "parent_linkage2"}) {
    const auto found = locator_.find(key);
    if (found == locator_.end()) continue;
    same = same || Uuid::parse(found->second) == below->data_write_id();
  }
  if (!same)
    throw Error(ErrorKind::kInvalid, "VHDX: the parent '" + parent_ +
                                         "' was modified after this disk was created: it is at " +
                                         below->data_write_id().text() + ", not at " +
                                         locator_.at("parent_linkage"));
}

Value VhdxNode::specific_info() const {
  Value info = Value::object();
  const Header& header = journal_->header();
  info.set("creator", creator_);
  info.set("subformat", parameters_.has_parent        ? "differencing"
                        : parameters_.leave_allocated ? "fixed"
                                                      : "dynamic");
  info.set("block-size", uint64_t{parameters_.block_bytes});
  info.set("logical-sector-size", uint64_t{parameters_.logical_sector});
  info.set("physical-sector-size", uint64_t{parameters_.physical_sector});
  info.set("log-size", uint64_t{header.log_length});
  info.set("log-pending", pending_log_ || log_damaged_);
  info.set("disk-id", parameters_.disk_id.text());
  info.set("file-write-id", header.file_write.text());
  info.set("data-write-id", header.data_write.text());
  for (const auto& [key, value] : locator_) info.set("parent:" + key, value);
  return info;
}

}  // namespace cairn
