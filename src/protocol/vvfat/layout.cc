#include "protocol/vvfat/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "base/arith.h"

namespace cairn::vvfat {
namespace {

constexpr uint32_t kDiskSignature = 0xbe1afdfa;
constexpr uint32_t kVolumeId = 0xfabe1afd;
constexpr uint32_t kFat32ReservedSectors = 32;
constexpr uint16_t kInfoSector = 1;
constexpr uint16_t kBackupSector = 6;
// Where the thirteen characters of a long name's slot stand.
constexpr uint8_t kUnitAt[LongNameSlot::kUnits] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};

template <class T>
void put(Sector& sector, size_t at, uint64_t value) {
  store_le<T>(sector, at, static_cast<T>(value));
}

// The 512 entries of the root are two clusters, which numbers 0 and 1 would be.
Geometry fixed(FatType type, bool floppy, uint32_t cylinders, uint32_t heads, uint32_t sectors) {
  Geometry g;
  g.type = type;
  g.floppy = floppy;
  g.heads = heads;
  g.sectors_per_track = sectors;
  g.total_sectors = uint64_t{cylinders} * heads * sectors;
  g.start_sector = floppy ? 0 : 63;
  g.root_entries = 512;
  const uint64_t volume = g.volume_sectors();
  const uint64_t reach = 1 + uint64_t{g.cluster_bytes()} * 8 / static_cast<uint32_t>(type);
  g.fat_sectors = static_cast<uint32_t>((volume + reach) / reach);
  const uint64_t root = g.root_offset() / kSectorBytes;
  const uint64_t data = g.data_offset() / kSectorBytes;
  g.usable_clusters = static_cast<uint32_t>((volume - root) / g.sectors_per_cluster - 2);
  g.clusters = static_cast<uint32_t>((g.total_sectors - data) / g.sectors_per_cluster);
  return g;
}

}  // namespace

Geometry Geometry::disk(FatType type) {
  return fixed(type, false, type == FatType::k12 ? 64 : 1024, 16, 63);
}

Geometry Geometry::floppy_disk(bool small) {
  return fixed(FatType::k12, true, 80, 2, small ? 18 : 36);
}

Geometry Geometry::fat32(uint64_t total_sectors, uint32_t sectors_per_cluster) {
  Geometry g;
  g.type = FatType::k32;
  g.total_sectors = total_sectors;
  g.heads = total_sectors <= 1024 * 16 * 63 ? 16 : 255;
  g.start_sector = 63;
  g.sectors_per_cluster = sectors_per_cluster;
  g.reserved_sectors = kFat32ReservedSectors;
  if (total_sectors > UINT32_MAX)
    throw Error(ErrorKind::kTooLarge, "A disk with FAT32 has at most 4294967295 sectors (2 TiB)");
  const uint64_t front = g.start_sector + kFat32ReservedSectors;
  const uint64_t rest = total_sectors > front ? total_sectors - front : 0;
  const uint64_t each = sectors_per_cluster;
  // A sector of a table serves 128 clusters; there are two tables.
  g.fat_sectors = static_cast<uint32_t>(div_ceil(rest + 2 * each, 128 * each + 2));
  const uint64_t tables = 2 * uint64_t{g.fat_sectors};
  const uint64_t clusters = rest > tables ? (rest - tables) / each : 0;
  if (clusters < 65525 || clusters > 0x0ffffff6)
    throw Error(ErrorKind::kInvalid, fmt::format("A disk of {} bytes has {} clusters of {} bytes; "
                                                 "FAT32 needs 65525 to 268435446 of them",
                                                 g.disk_bytes(), clusters, g.cluster_bytes()));
  g.clusters = g.usable_clusters = static_cast<uint32_t>(clusters);
  return g;
}

uint32_t Geometry::end_of_chain() const {
  switch (type) {
    case FatType::k12:
      return 0xfff;
    case FatType::k16:
      return 0xffff;
    case FatType::k32:
      break;
  }
  return 0x0fffffff;
}

Sector encode_mbr(const Geometry& g) {
  Sector out{};
  put<uint32_t>(out, 0x1b8, kDiskSignature);
  constexpr size_t kEntry = 0x1be;
  const uint64_t last = g.total_sectors - 1;
  const uint64_t cylinder = last / (uint64_t{g.heads} * g.sectors_per_track);
  const bool reachable = cylinder < 1024;  // by cylinder, head and sector
  put<uint8_t>(out, kEntry, 0x80);
  put<uint8_t>(out, kEntry + 1, g.start_sector / g.sectors_per_track % g.heads);
  put<uint8_t>(out, kEntry + 2, g.start_sector % g.sectors_per_track + 1);
  const uint8_t kind = g.type == FatType::k12   ? 0x01
                       : g.type == FatType::k16 ? 0x06
                       : reachable              ? 0x0b
                                                : 0x0c;
  put<uint8_t>(out, kEntry + 4, kind);
  put<uint8_t>(out, kEntry + 5, reachable ? last / g.sectors_per_track % g.heads : 0xfe);
  put<uint8_t>(out, kEntry + 6,
               reachable ? (last % g.sectors_per_track + 1) | cylinder >> 8 << 6 : 0xff);
  put<uint8_t>(out, kEntry + 7, reachable ? cylinder : 0xff);
  put<uint32_t>(out, kEntry + 8, g.start_sector);
  put<uint32_t>(out, kEntry + 12, g.volume_sectors());
  put<uint16_t>(out, 510, 0xaa55);
  return out;
}

Sector encode_boot_sector(const Geometry& g, std::string_view label) {
  Sector out{};
  const bool large = g.type == FatType::k32;
  const uint64_t volume = g.volume_sectors();
  const bool small = !large && volume <= UINT16_MAX;
  store_text(out, 0, large ? "\xeb\x58\x90" : "\xeb\x3e\x90");
  store_text(out, 3, "MSWIN4.1");
  put<uint16_t>(out, 11, kSectorBytes);
  put<uint8_t>(out, 13, g.sectors_per_cluster);
  put<uint16_t>(out, 14, g.reserved_sectors);
  put<uint8_t>(out, 16, 2);
  put<uint16_t>(out, 17, g.root_entries);
  put<uint16_t>(out, 19, small ? volume : 0);
  put<uint8_t>(out, 21, g.media());
  put<uint16_t>(out, 22, large ? 0 : g.fat_sectors);
  put<uint16_t>(out, 24, g.sectors_per_track);
  put<uint16_t>(out, 26, g.heads);
  put<uint32_t>(out, 28, g.start_sector);
  put<uint32_t>(out, 32, small ? 0 : volume);
  if (large) {
    put<uint32_t>(out, 36, g.fat_sectors);
    put<uint32_t>(out, 44, kRootCluster);
    put<uint16_t>(out, 48, kInfoSector);
    put<uint16_t>(out, 50, kBackupSector);
  }
  const size_t tail = large ? 64 : 36;
  put<uint8_t>(out, tail, g.floppy ? 0 : 0x80);
  put<uint8_t>(out, tail + 2, 0x29);
  put<uint32_t>(out, tail + 3, kVolumeId);
  std::string padded(label.substr(0, kLabelBytes));
  padded.resize(kLabelBytes, ' ');
  store_text(out, tail + 7, padded);
  store_text(out, tail + 18, large ? "FAT32   " : g.type == FatType::k12 ? "FAT12   " : "FAT16   ");
  put<uint16_t>(out, 510, 0xaa55);
  return out;
}

Sector encode_fs_info(uint32_t free_clusters, uint32_t next_free) {
  Sector out{};
  put<uint32_t>(out, 0, 0x41615252);
  put<uint32_t>(out, 484, 0x61417272);
  put<uint32_t>(out, 488, free_clusters);
  put<uint32_t>(out, 492, next_free);
  put<uint32_t>(out, 508, 0xaa550000);
  return out;
}

DosTime DosTime::from_local(int64_t local_seconds) {
  constexpr int64_t kFirst = 315532800;  // 1980-01-01
  constexpr int64_t kLast = 4354819198;  // 2107-12-31 23:59:58
  const auto seconds = static_cast<uint64_t>(std::clamp(local_seconds, kFirst, kLast));
  // Years are counted from March on, so that a leap day is the last of its year.
  const uint64_t days = seconds / 86400 + 719468;
  const uint64_t era = days / 146097;
  const uint64_t of_era = days % 146097;
  const uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  const uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint64_t from_march = (5 * of_year + 2) / 153;
  const uint64_t day = of_year - (153 * from_march + 2) / 5 + 1;
  const uint64_t month = from_march < 10 ? from_march + 3 : from_march - 9;
  const uint64_t year = era * 400 + year_of_era + (month <= 2 ? 1 : 0);
  const uint64_t second = seconds % 86400;
  return {
      .date = static_cast<uint16_t>((year - 1980) << 9 | month << 5 | day),
      .time = static_cast<uint16_t>(second / 3600 << 11 | second / 60 % 60 << 5 | second % 60 / 2)};
}

int64_t DosTime::to_local() const {
  const int64_t year = 1980 + (date >> 9) - ((date >> 5 & 0xf) <= 2 ? 1 : 0);
  const int64_t month = std::clamp(date >> 5 & 0xf, 1, 12);
  const int64_t day = std::clamp(date & 0x1f, 1, 31);
  const int64_t from_march = (month + 9) % 12;
  const int64_t of_year = (153 * from_march + 2) / 5 + day - 1;
  const int64_t days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719468;
  const int64_t hour = std::min(time >> 11, 23);
  const int64_t minute = std::min(time >> 5 & 0x3f, 59);
  const int64_t second = std::min((time & 0x1f) * 2, 58);
  return days * 86400 + hour * 3600 + minute * 60 + second;
}

void DirectoryEntry::encode(MutableByteSpan slot) const {
  store_text(slot, 0, {name.data(), name.size()});
  store_le<uint8_t>(slot, 11, attributes);
  store_le<uint8_t>(slot, 12, case_flags);
  store_le<uint8_t>(slot, 13, 0);
  store_le<uint16_t>(slot, 14, created.time);
  store_le<uint16_t>(slot, 16, created.date);
  store_le<uint16_t>(slot, 18, accessed_date);
  store_le<uint16_t>(slot, 20, static_cast<uint16_t>(cluster >> 16));
  store_le<uint16_t>(slot, 22, written.time);
  store_le<uint16_t>(slot, 24, written.date);
  store_le<uint16_t>(slot, 26, static_cast<uint16_t>(cluster));
  store_le<uint32_t>(slot, 28, bytes);
}

DirectoryEntry DirectoryEntry::decode(ByteSpan slot) {
  DirectoryEntry out;
  for (size_t i = 0; i < out.name.size(); ++i) out.name[i] = static_cast<char>(slot[i]);
  if (static_cast<uint8_t>(out.name[0]) == kForE5) out.name[0] = static_cast<char>(0xe5);
  out.attributes = load_le<uint8_t>(slot, 11);
  out.case_flags = load_le<uint8_t>(slot, 12);
  out.created = {.date = load_le<uint16_t>(slot, 16), .time = load_le<uint16_t>(slot, 14)};
  out.accessed_date = load_le<uint16_t>(slot, 18);
  out.written = {.date = load_le<uint16_t>(slot, 24), .time = load_le<uint16_t>(slot, 22)};
  out.cluster = uint32_t{load_le<uint16_t>(slot, 20)} << 16 | load_le<uint16_t>(slot, 26);
  out.bytes = load_le<uint32_t>(slot, 28);
  return out;
}

void LongNameSlot::encode(MutableByteSpan slot) const {
  store_le<uint8_t>(slot, 0, sequence);
  store_le<uint8_t>(slot, 11, attribute::kLongName);
  store_le<uint8_t>(slot, 12, 0);
  store_le<uint8_t>(slot, 13, checksum);
  store_le<uint16_t>(slot, 26, 0);
  for (size_t i = 0; i < kUnits; ++i)
    store_le<uint16_t>(slot, kUnitAt[i], static_cast<uint16_t>(units[i]));
}

LongNameSlot LongNameSlot::decode(ByteSpan slot) {
  LongNameSlot out;
  out.sequence = load_le<uint8_t>(slot, 0);
  out.checksum = load_le<uint8_t>(slot, 13);
  for (size_t i = 0; i < kUnits; ++i)
    out.units[i] = static_cast<char16_t>(load_le<uint16_t>(slot, kUnitAt[i]));
  return out;
}

uint8_t short_name_checksum(const ShortName& name) {
  uint32_t sum = 0;
  for (const char c : name)
    sum = (((sum & 1) << 7 | sum >> 1) + static_cast<unsigned char>(c)) & 0xff;
  return static_cast<uint8_t>(sum);
}

}  // namespace cairn::vvfat
