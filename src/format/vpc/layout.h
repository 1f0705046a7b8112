#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/uuid.h"
#include "format/vpc/geometry.h"

// The structures of VHD images, free of I/O. Source: Microsoft's published "Virtual Hard Disk Image
// Format Specification", sections "Hard Disk Footer Format", "Dynamic Disk Header Format" and
// "Block Allocation Table"; docs/formats/vpc.md has what tools do beyond it.
namespace cairn::vpc {

inline constexpr uint64_t kSector = 512;
inline constexpr size_t kFooterBytes = 512;
inline constexpr size_t kHeaderBytes = 1024;
inline constexpr uint64_t kMaxSectors = 0xff000000;  // 2040 GiB
inline constexpr uint32_t kMaxEntries = 536870911;
inline constexpr uint32_t kUnused = 0xffffffff;
inline constexpr uint32_t kDefaultBlockBytes = 2 << 20;
inline constexpr uint64_t kNoOffset = UINT64_MAX;

enum class Kind : uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

// Which number is the size of the disk.
enum class SizeRule { kByCreator, kCurrentSize, kGeometry };

// At the end of every image, and copied to the start of those that are not fixed.
struct Footer {
  Kind kind = Kind::kDynamic;
  uint64_t header_offset = kNoOffset;
  uint32_t timestamp = 0;  // seconds since 2000
  std::string creator = "qemu";
  uint64_t original_size = 0;  // bytes
  uint64_t current_size = 0;   // bytes
  Geometry geometry;
  Uuid id;
  std::array<std::byte, kFooterBytes> raw{};  // as read; what we do not know is kept

  static bool has_cookie(ByteSpan sector);
  // Throws kInvalid: "Incorrect header checksum".
  static Footer decode(ByteSpan sector);
  // With the checksum.
  void encode(MutableByteSpan sector) const;
  // A footer for a new disk of so many bytes, created now.
  static Footer fresh(Kind kind, uint64_t size, Geometry geometry, bool exact);
  // The size of the disk in bytes.
  uint64_t disk_bytes(SizeRule rule) const;
};

struct ParentLocator {
  static constexpr size_t kCount = 8;
  uint32_t code = 0;  // four letters
  uint32_t space = 0;
  uint32_t length = 0;  // bytes
  uint64_t offset = 0;
};
inline constexpr uint32_t kRelativeWindows = 0x57327275;  // "W2ru"
inline constexpr uint32_t kAbsoluteWindows = 0x57326b75;  // "W2ku"
inline constexpr uint32_t kMacUrl = 0x4d616358;           // "MacX"

// What a dynamic or differencing image has besides the footer.
struct DynamicHeader {
  uint64_t table_offset = 0;
  uint32_t entries = 0;
  uint32_t block_bytes = kDefaultBlockBytes;
  Uuid parent_id;
  uint32_t parent_timestamp = 0;
  std::string parent_name;  // UTF-8
  std::array<ParentLocator, ParentLocator::kCount> locators{};
  bool checksum_good = true;
  std::array<std::byte, kHeaderBytes> raw{};

  // Throws kInvalid with QEMU's words, in QEMU's order. DISK_BYTES is the size of the disk.
  static DynamicHeader decode(ByteSpan bytes, uint64_t disk_bytes);
  void encode(MutableByteSpan bytes) const;

  uint64_t table_bytes() const { return (uint64_t{entries} * 4 + 511) / 512 * 512; }
  // Bytes of the bitmap before each block.
  uint64_t bitmap_bytes() const { return (block_bytes / kSector / 8 + 511) / 512 * 512; }
};

// The complement of the sum of all bytes but the four at CHECKSUM_OFFSET.
uint32_t checksum(ByteSpan bytes, size_t checksum_offset);
// Seconds since the start of 2000, of Unix time TIME, and now.
uint32_t timestamp_of(int64_t time);
uint32_t timestamp_now();

}  // namespace cairn::vpc
