#include "protocol/vvfat/image.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"

namespace cairn::vvfat {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

uint64_t clusters_of(const Entry& entry, const Geometry& g) {
  if (entry.kind == Entry::Kind::kFolder) {
    if (entry.name.empty() && g.root_entries != 0) return 0;
    return std::max<uint64_t>(1, div_ceil(uint64_t{entry.slots} * kSlotBytes, g.cluster_bytes()));
  }
  return div_ceil(entry.bytes(), g.cluster_bytes());
}

uint64_t clusters_of(const Tree& tree, const Geometry& g) {
  uint64_t sum = 0;
  for (const Entry& entry : tree.entries) sum += clusters_of(entry, g);
  return sum;
}

// As large as QEMU's disk, or what the directory takes and a quarter more, for a guest to write.
Geometry choose_fat32(const ImageOptions& options, const Tree& tree) {
  Geometry g;
  g.type = FatType::k32;
  if (options.cluster_bytes) {
    const uint64_t bytes = *options.cluster_bytes;
    if (!is_power_of_two(bytes) || bytes < kSectorBytes || bytes > 65536)
      throw Error(ErrorKind::kInvalid,
                  "'cluster-size' must be a power of two between 512 and 65536");
  }
  const auto sectors_for = [&](uint64_t disk_bytes) {
    const uint64_t bytes = options.cluster_bytes     ? *options.cluster_bytes
                           : disk_bytes <= 8 * kGiB  ? 4096
                           : disk_bytes <= 16 * kGiB ? 8192
                           : disk_bytes <= 32 * kGiB ? 16384
                                                     : 32768;
    return static_cast<uint32_t>(bytes / kSectorBytes);
  };
  if (options.disk_bytes) {
    if (!is_aligned(*options.disk_bytes, kSectorBytes))
      throw Error(ErrorKind::kInvalid, "'size' must be a multiple of 512");
    return Geometry::fat32(*options.disk_bytes / kSectorBytes, sectors_for(*options.disk_bytes));
  }
  uint64_t bytes = Geometry::disk(FatType::k16).disk_bytes();
  // Larger clusters for a larger disk take more of it: twice is enough.
  for (int round = 0; round < 2; ++round) {
    g.sectors_per_cluster = sectors_for(bytes);
    const uint64_t data = clusters_of(tree, g) * g.cluster_bytes();
    const uint64_t tables = data / g.cluster_bytes() * 10 + (uint64_t{1} << 20);
    bytes = std::max(bytes, align_up(data + data / 4 + tables, uint64_t{1} << 20));
  }
  bytes = std::max(bytes, uint64_t{66000} * sectors_for(bytes) * kSectorBytes);
  return Geometry::fat32(bytes / kSectorBytes, sectors_for(bytes));
}

}  // namespace

Geometry choose_geometry(const ImageOptions& options, const Tree& tree) {
  if (options.fat_type != 32 && (options.disk_bytes || options.cluster_bytes))
    throw Error(ErrorKind::kInvalid, "'size' and 'cluster-size' can be chosen for FAT32 only");
  if (options.floppy) {
    if (options.fat_type == 16 || options.fat_type == 32)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("a floppy has too few clusters for FAT{}", options.fat_type))
          .hint("Leave the type out, or say 12.");
    return Geometry::floppy_disk(options.fat_type == 12);
  }
  if (options.fat_type == 32) return choose_fat32(options, tree);
  return Geometry::disk(options.fat_type == 12 ? FatType::k12 : FatType::k16);
}

Image::Image(const Geometry& geometry, Tree& tree, const std::string& folder,
             const ImageOptions& options, const std::function<void(std::string_view)>& warn)
    : geometry_(geometry) {
  place(tree, folder, warn);
  write_directories(tree, options);
  const Geometry& g = geometry_;
  if (!g.floppy) reserved_.emplace_back(0, encode_mbr(g));
  const Sector boot = encode_boot_sector(g, options.label);
  reserved_.emplace_back(g.start_sector, boot);
  if (g.type != FatType::k32) return;
  const uint32_t used = runs_.empty() ? 0 : runs_.back().first + runs_.back().count - 2;
  const Sector info =
      encode_fs_info(g.clusters - used, used == g.clusters ? kRootCluster : used + 2);
  Sector third{};
  store_le<uint16_t>(third, 510, 0xaa55);
  for (const uint32_t copy : {0u, 6u}) {
    if (copy != 0) reserved_.emplace_back(g.start_sector + copy, boot);
    reserved_.emplace_back(g.start_sector + copy + 1, info);
    reserved_.emplace_back(g.start_sector + copy + 2, third);
  }
}

void Image::place(Tree& tree, const std::string& folder,
                  const std::function<void(std::string_view)>& warn) {
  const Geometry& g = geometry_;
  if (g.root_entries != 0 && tree.entries[0].slots > g.root_entries) {
    warn("Too many entries in root directory");
    throw Error(ErrorKind::kTooLarge, "Could not read directory " + folder)
        .hint("FAT32 (fat:32:…) has no limit there.");
  }
  uint64_t next = 2;
  for (uint32_t index = 0; index < tree.entries.size(); ++index) {
    Entry& entry = tree.entries[index];
    const uint64_t clusters = clusters_of(entry, g);
    if (clusters == 0) continue;
    if (next + clusters > uint64_t{g.usable_clusters} + 2) {
      const uint64_t hundredths = (g.volume_sectors() + 10) / 20;  // of QEMU's megabytes
      const std::string cents = std::to_string(hundredths % 100 + 100).substr(1);
      Error error(ErrorKind::kTooLarge,
                  fmt::format("Directory does not fit in FAT{} (capacity {}.{} MB)",
                              static_cast<unsigned>(g.type), hundredths / 100, cents));
      if (g.type != FatType::k32) error.hint("FAT32 (fat:32:…) grows with the directory.");
      throw error;
    }
    entry.first_cluster = static_cast<uint32_t>(next);
    entry.clusters = static_cast<uint32_t>(clusters);
    runs_.push_back({.first = entry.first_cluster, .count = entry.clusters, .entry = index});
    next += clusters;
  }
}

namespace {

void put_long_name(const Entry& entry, std::vector<std::byte>& out) {
  constexpr size_t kUnits = LongNameSlot::kUnits;
  const size_t slots = div_ceil(entry.shown.size(), kUnits);
  for (size_t number = slots; number > 0; --number) {
    LongNameSlot slot;
    slot.sequence =
        static_cast<uint8_t>(number | (number == slots ? LongNameSlot::kLast : uint8_t{0}));
    slot.checksum = short_name_checksum(entry.short_name);
    for (size_t i = 0; i < kUnits; ++i) {
      const size_t at = (number - 1) * kUnits + i;
      slot.units[i] = at < entry.shown.size()    ? entry.shown[at]
                      : at == entry.shown.size() ? u'\0'
                                                 : u'\uffff';
    }
    out.resize(out.size() + kSlotBytes);
    slot.encode(std::span(out).last(kSlotBytes));
  }
}

void put(const DirectoryEntry& entry, std::vector<std::byte>& out) {
  out.resize(out.size() + kSlotBytes);
  entry.encode(std::span(out).last(kSlotBytes));
}

ShortName padded_name(std::string_view text) {
  ShortName name;
  name.fill(' ');
  std::copy(text.begin(), text.end(), name.begin());
  return name;
}

DirectoryEntry entry_for(const Entry& entry, const ShortName& name, bool show_protection) {
  DirectoryEntry out;
  out.name = name;
  out.attributes = entry.kind == Entry::Kind::kFolder ? attribute::kFolder : attribute::kArchive;
  out.created = entry.created;
  out.written = entry.written;
  if (show_protection && entry.kind != Entry::Kind::kFolder &&
      (entry.write_protected || entry.linked))
    out.attributes |= attribute::kReadOnly;
  // The host's own date of access would change by looking.
  out.accessed_date = entry.written.date;
  out.cluster = entry.first_cluster;
  out.bytes = static_cast<uint32_t>(entry.bytes());
  return out;
}

}  // namespace

void Image::write_directories(const Tree& tree, const ImageOptions& options) {
  const bool protection = options.show_protection;
  places_.resize(tree.entries.size());
  std::vector<std::byte>& out = directories_;
  for (uint32_t index = 0; index < tree.entries.size(); ++index) {
    const Entry& folder = tree.entries[index];
    if (folder.kind != Entry::Kind::kFolder) continue;
    const size_t begin = out.size();
    if (index == 0) {
      DirectoryEntry volume;
      volume.name = padded_name(options.label);
      volume.attributes = attribute::kVolume | attribute::kArchive;
      put(volume, out);
    } else {
      put(entry_for(folder, padded_name("."), protection), out);
      DirectoryEntry above = entry_for(tree.entries[folder.parent], padded_name(".."), protection);
      if (folder.parent == 0) above.cluster = 0;
      put(above, out);
    }
    for (uint32_t i = 0; i < folder.children; ++i) {
      const Entry& child = tree.entries[folder.first_child + i];
      put_long_name(child, out);
      put(entry_for(child, child.short_name, protection), out);
    }
    places_[index] = {begin, out.size() - begin};
  }
}

ByteSpan Image::directory(uint32_t entry) const {
  const auto [begin, length] = places_[entry];
  return ByteSpan(directories_).subspan(begin, length);
}

void Image::read_reserved(uint64_t offset, MutableByteSpan out) const {
  std::memset(out.data(), 0, out.size());
  for (const auto& [sector, bytes] : reserved_) {
    const uint64_t begin = std::max(offset, sector * kSectorBytes);
    const uint64_t end = std::min(offset + out.size(), (sector + 1) * kSectorBytes);
    if (begin < end)
      std::memcpy(out.data() + (begin - offset), bytes.data() + begin % kSectorBytes, end - begin);
  }
}

// Bytes of the table from OFFSET on, made from the runs: a chain is the numbers in a row.
void Image::read_table(uint64_t offset, MutableByteSpan out) const {
  const Geometry& g = geometry_;
  const uint64_t bits = static_cast<uint64_t>(g.type);
  auto number = static_cast<uint32_t>(offset * 8 / bits);
  auto run = std::upper_bound(runs_.begin(), runs_.end(), number,
                              [](uint32_t n, const ClusterRun& r) { return n < r.first; });
  if (run != runs_.begin()) --run;
  const auto value = [&](uint32_t n) -> uint32_t {
    if (n == 0) return (g.end_of_chain() & ~uint32_t{0xff}) | g.media();
    if (n == 1) return g.end_of_chain();
    while (run != runs_.end() && n >= run->first + run->count) ++run;
    if (run == runs_.end() || n < run->first) return 0;
    return n + 1 == run->first + run->count ? g.end_of_chain() : n + 1;
  };
  // Nibbles, so that one loop serves all widths; most of it is skipped after the last cluster.
  const uint32_t last = runs_.empty() ? 1 : runs_.back().first + runs_.back().count - 1;
  std::memset(out.data(), 0, out.size());
  const uint64_t nibbles = bits / 4;
  const uint64_t first_nibble = offset * 2;
  const uint64_t end_nibble = first_nibble + out.size() * 2;
  for (; number <= last; ++number) {
    const uint64_t begin = number * nibbles;
    if (begin >= end_nibble) break;
    const uint32_t entry = value(number);
    for (uint64_t i = 0; i < nibbles; ++i) {
      const uint64_t at = begin + i;
      if (at < first_nibble || at >= end_nibble) continue;
      const uint32_t nibble = entry >> (4 * i) & 0xf;
      out[(at - first_nibble) / 2] |= static_cast<std::byte>(nibble << (at % 2 * 4));
    }
  }
}

void Image::read_front(uint64_t offset, MutableByteSpan out) const {
  const Geometry& g = geometry_;
  while (!out.empty()) {
    uint64_t end = g.data_offset();
    if (offset < g.fat_offset()) {
      end = g.fat_offset();
    } else if (offset < g.root_offset()) {
      const uint64_t copy = (offset - g.fat_offset()) / g.fat_bytes();
      end = g.fat_offset() + (copy + 1) * g.fat_bytes();
    }
    const size_t part = std::min<uint64_t>(out.size(), end - offset);
    if (offset < g.fat_offset()) {
      read_reserved(offset, out.first(part));
    } else if (offset < g.root_offset()) {
      read_table((offset - g.fat_offset()) % g.fat_bytes(), out.first(part));
    } else {
      const ByteSpan root = directory(0);
      const uint64_t at = offset - g.root_offset();
      const size_t there = at < root.size() ? std::min<size_t>(part, root.size() - at) : 0;
      if (there != 0) std::memcpy(out.data(), root.data() + at, there);
      std::memset(out.data() + there, 0, part - there);
    }
    offset += part;
    out = out.subspan(part);
  }
}

}  // namespace cairn::vvfat
