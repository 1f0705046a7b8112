#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace cairn::vvfat {

// The structures of a FAT disk, as laid down in Microsoft's "FAT32 File System Specification" 1.03
// and, for the partition table, in the PC's master boot record.

constexpr uint32_t kSectorBytes = 512;
constexpr uint32_t kSlotBytes = 32;   // of a directory
constexpr uint32_t kRootCluster = 2;  // of FAT32
constexpr uint64_t kMaxFolderBytes = 65536 * uint64_t{kSlotBytes};
constexpr size_t kLabelBytes = 11;

enum class FatType : uint8_t { k12 = 12, k16 = 16, k32 = 32 };

// Where everything is. FAT12 and FAT16 are laid out as QEMU does it, so that what both show differs
// in the order of names only.
struct Geometry {
  FatType type = FatType::k16;
  bool floppy = false;
  uint32_t heads = 16;
  uint32_t sectors_per_track = 63;
  uint64_t total_sectors = 0;
  uint32_t start_sector = 0;  // of the volume on the disk
  uint32_t sectors_per_cluster = 16;
  uint32_t reserved_sectors = 1;
  uint32_t fat_sectors = 0;      // of each of the two tables
  uint32_t root_entries = 0;     // 0: the root is a chain of clusters
  uint32_t usable_clusters = 0;  // what a directory may fill
  uint32_t clusters = 0;         // what a file system driver finds: numbers 2 to clusters + 1

  static Geometry disk(FatType type);  // FAT12 or FAT16
  static Geometry floppy_disk(bool small);
  // TOTAL_SECTORS, at most 2^32 - 1. Throws kTooLarge, and kInvalid when there are not 65,525 to
  // 2^28 - 10 clusters, which is what makes a FAT32.
  static Geometry fat32(uint64_t total_sectors, uint32_t sectors_per_cluster);

  uint64_t disk_bytes() const { return total_sectors * kSectorBytes; }
  uint64_t volume_sectors() const { return total_sectors - start_sector; }
  uint32_t cluster_bytes() const { return sectors_per_cluster * kSectorBytes; }
  // Bytes from the start of the disk.
  uint64_t volume_offset() const { return uint64_t{start_sector} * kSectorBytes; }
  uint64_t fat_offset() const { return (uint64_t{start_sector} + reserved_sectors) * kSectorBytes; }
  uint64_t fat_bytes() const { return uint64_t{fat_sectors} * kSectorBytes; }
  uint64_t root_offset() const { return fat_offset() + 2 * fat_bytes(); }
  uint64_t root_bytes() const { return uint64_t{root_entries} * kSlotBytes; }
  uint64_t data_offset() const { return root_offset() + root_bytes(); }
  uint64_t cluster_offset(uint32_t cluster) const {
    return data_offset() + uint64_t{cluster - 2} * cluster_bytes();
  }
  // What the table holds for the last cluster of a chain.
  uint32_t end_of_chain() const;
  uint8_t media() const { return floppy ? 0xf0 : 0xf8; }
};

using Sector = std::array<std::byte, kSectorBytes>;

Sector encode_mbr(const Geometry& geometry);
// Of LABEL the first 11 bytes count.
Sector encode_boot_sector(const Geometry& geometry, std::string_view label);
// The sector that says how much is free; FAT32 only.
Sector encode_fs_info(uint32_t free_clusters, uint32_t next_free);

// A moment as directories keep it: steps of two seconds from 1980 to 2107, without a zone.
struct DosTime {
  uint16_t date = 0;
  uint16_t time = 0;
  // Of seconds since 1970 on the local clock; clamped to what FAT can hold.
  static DosTime from_local(int64_t local_seconds);
  // Seconds since 1970 on the local clock; parts that make no date are clamped.
  int64_t to_local() const;
  bool operator==(const DosTime&) const = default;
};

using ShortName = std::array<char, 11>;  // eight and three, padded with spaces

namespace attribute {
constexpr uint8_t kReadOnly = 0x01;
constexpr uint8_t kVolume = 0x08;
constexpr uint8_t kLongName = 0x0f;
constexpr uint8_t kFolder = 0x10;
constexpr uint8_t kArchive = 0x20;
}  // namespace attribute

struct DirectoryEntry {
  // What the first byte of a slot says instead of a name.
  static constexpr uint8_t kEnd = 0x00;  // this slot and those after it were never used
  static constexpr uint8_t kDeleted = 0xe5;
  static constexpr uint8_t kForE5 = 0x05;  // the name begins with the character 0xe5
  // Of case_flags: how Windows NT says that a part of the short name is meant in lower case.
  static constexpr uint8_t kLowerBase = 0x08;
  static constexpr uint8_t kLowerExtension = 0x10;

  ShortName name{};
  uint8_t attributes = 0;
  uint8_t case_flags = 0;
  DosTime created;
  DosTime written;
  uint16_t accessed_date = 0;
  uint32_t cluster = 0;
  uint32_t bytes = 0;

  void encode(MutableByteSpan slot) const;
  static DirectoryEntry decode(ByteSpan slot);
};

// A slot with thirteen characters of a long name. Such slots stand before the entry, the last part
// of the name first.
struct LongNameSlot {
  static constexpr size_t kUnits = 13;
  static constexpr uint8_t kLast = 0x40;
  uint8_t sequence = 0;  // from 1; with kLast in the first slot on disk
  uint8_t checksum = 0;
  std::array<char16_t, kUnits> units{};

  void encode(MutableByteSpan slot) const;
  static LongNameSlot decode(ByteSpan slot);
};

uint8_t short_name_checksum(const ShortName& name);

}  // namespace cairn::vvfat
