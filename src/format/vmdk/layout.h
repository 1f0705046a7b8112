#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace cairn::vmdk {

constexpr uint64_t kSector = 512;
constexpr uint64_t kGdAtEnd = UINT64_MAX;  // the grain directory's place is in the footer

// Flags of the sparse header.
constexpr uint32_t kFlagLineTest = 1;
constexpr uint32_t kFlagRedundant = 2;
constexpr uint32_t kFlagZeroedGrain = 4;
constexpr uint32_t kFlagCompressed = 1u << 16;
constexpr uint32_t kFlagMarkers = 1u << 17;
constexpr uint32_t kKnownFlags =
    kFlagLineTest | kFlagRedundant | kFlagZeroedGrain | kFlagCompressed | kFlagMarkers;

constexpr uint64_t kMaxGrainSectors = 0x200000;
constexpr uint64_t kMaxTables = 32u << 20;

bool is_sparse(ByteSpan head);  // begins with "KDMV"
bool is_cowd(ByteSpan head);    // begins with "COWD"
bool is_sesparse(ByteSpan head);

// Header and footer of a hosted sparse extent. Offsets and sizes are sectors.
struct SparseHeader {
  static constexpr size_t kBytes = 512;
  static constexpr uint64_t kRgdField = 48;
  static constexpr uint64_t kGdField = 56;
  uint32_t version = 1;
  uint32_t flags = kFlagLineTest | kFlagRedundant;
  uint64_t capacity = 0;
  uint64_t grain = 128;
  uint64_t descriptor_offset = 1;
  uint64_t descriptor_sectors = 20;
  uint32_t entries = 512;  // of a grain table
  uint64_t rgd_offset = 0;
  uint64_t gd_offset = 0;
  uint64_t overhead = 0;
  bool unclean = false;
  uint16_t compression = 0;  // 1: deflate

  bool compressed() const { return compression == 1; }
  bool markers() const { return (flags & kFlagMarkers) != 0; }
  bool zeroed() const { return (flags & kFlagZeroedGrain) != 0; }
  bool redundant() const { return (flags & kFlagRedundant) != 0; }
  // Grain tables of the whole extent.
  uint64_t tables() const;

  // Reads the fields; throws kInvalid when the magic is another's.
  static SparseHeader decode(ByteSpan bytes);
  // Throws kInvalid in QEMU's words when the fields cannot be used for a file of FILE_BYTES: its
  // sizes; then that there is a directory in it, where two are announced at least one.
  void check_sizes(uint64_t file_bytes) const;
  void check(uint64_t file_bytes) const;
  bool directory_inside(uint64_t file_bytes) const;
  bool redundant_inside(uint64_t file_bytes) const;
  void encode(MutableByteSpan bytes) const;
  // The layout of a fresh extent of SECTORS: tables in front, all of them there. Throws kTooLarge.
  static SparseHeader fresh(uint64_t sectors, bool stream, bool zeroed);
  uint64_t directory_sectors() const;
  uint64_t table_sectors() const;
};
// Where the unclean-shutdown byte is in the header.
constexpr uint64_t kUncleanOffset = 72;

// An ESX sparse extent. Offsets are sectors.
struct CowdHeader {
  static constexpr size_t kBytes = 2048;
  static constexpr uint32_t kEntries = 4096;
  static constexpr uint64_t kFreeSectorOffset = 28;
  uint32_t sectors = 0;
  uint32_t grain = 1;
  uint32_t gd_offset = 4;
  uint32_t directory_entries = 0;
  uint32_t free_sector = 0;
  // Throws kInvalid when the fields make no sense for a file of FILE_BYTES.
  static CowdHeader decode(ByteSpan bytes, uint64_t file_bytes);
};

// A space-efficient sparse extent. Offsets and sizes are sectors.
struct SeSparseHeader {
  static constexpr uint64_t kGrainSectors = 8;
  static constexpr uint64_t kTableSectors = 64;
  static constexpr uint64_t kEntries = 4096;
  uint64_t capacity = 0;
  uint64_t volatile_offset = 0;
  uint64_t directory_offset = 0;
  uint64_t directory_sectors = 0;
  uint64_t tables_offset = 0;
  uint64_t tables_sectors = 0;
  uint64_t grains_offset = 0;
  uint64_t grains_sectors = 0;
  // Throws kInvalid in QEMU's words.
  static SeSparseHeader decode(ByteSpan bytes, uint64_t file_bytes);
  static void check_volatile(ByteSpan bytes);
};

// Precedes what is in a stream. A marker with bytes is a grain and its data begins at
// kDataOffset.
struct Marker {
  static constexpr size_t kDataOffset = 12;
  enum Type : uint32_t { kEnd = 0, kTable = 1, kDirectory = 2, kFooter = 3 };
  uint64_t value = 0;  // first sector of the grain, or sectors of the item after it
  uint32_t bytes = 0;  // of compressed data; 0: no grain
  uint32_t type = kEnd;
  static Marker decode(ByteSpan bytes);
  void encode(MutableByteSpan bytes) const;
};

}  // namespace cairn::vmdk
