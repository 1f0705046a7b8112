#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/uuid.h"

// The structures of VHDX images, free of I/O. Source: Microsoft's [MS-VHDX], sections "Header
// Section", "Metadata Region", "Blocks" and "Log"; docs/formats/vhdx.md has what tools do beyond
// it.
namespace cairn::vhdx {

inline constexpr uint64_t kMiB = 1 << 20;
inline constexpr uint64_t kSectorBytes = 4096;  // of the log, and of what goes through it
inline constexpr std::string_view kSignature = "vhdxfile";
inline constexpr std::array<uint64_t, 2> kHeaderOffsets = {64 << 10, 128 << 10};
inline constexpr std::array<uint64_t, 2> kRegionOffsets = {192 << 10, 256 << 10};
inline constexpr size_t kHeaderBytes = 4096;
inline constexpr size_t kTableBytes = 64 << 10;  // of the region and metadata tables
inline constexpr uint64_t kMaxDisk = 64ull << 40;
inline constexpr uint64_t kMaxItem = kMiB;
inline constexpr uint64_t kMaxBlock = 256 * kMiB;
inline constexpr uint64_t kBitmapBlockBytes = kMiB;
inline constexpr unsigned kMaxEntries = 2047;

struct Header {
  uint64_t sequence = 0;
  Uuid file_write, data_write, log_guid;
  uint16_t version = 1;
  uint16_t log_version = 0;
  uint32_t log_length = 0;  // bytes
  uint64_t log_offset = 0;
  std::array<std::byte, kHeaderBytes> raw{};  // as read: what we do not know is kept

  // Nothing when signature or checksum are wrong.
  static std::optional<Header> decode(ByteSpan bytes);
  void encode(MutableByteSpan bytes) const;
};

// The current one of two headers, which of them it is, and whether the other one is damaged.
struct CurrentHeader {
  Header header;
  unsigned slot = 0;
  bool other_damaged = false;
};
// Throws kInvalid: "No valid VHDX header found".
CurrentHeader choose_header(ByteSpan first, ByteSpan second);
// Throws kInvalid when the place of the log makes no sense.
void check_log_place(const Header& header);

struct Region {
  Uuid id;
  uint64_t offset = 0;
  uint32_t length = 0;
  bool required = false;
};
extern const Uuid kBatRegion, kMetadataRegion;

struct RegionTable {
  std::vector<Region> regions;

  // Nothing when signature, checksum or count are wrong.
  static std::optional<RegionTable> decode(ByteSpan bytes);
  void encode(MutableByteSpan bytes) const;
  // Throws kInvalid or kUnsupported unless both known regions are there once, all are aligned and
  // disjoint, in a file of FILE_BYTES, and none is in the way of the log.
  void check(uint64_t file_bytes, const Header& header) const;
  const Region& get(const Uuid& id) const;
};
// Throws "VHDX region A-B overlaps with region C-D" when they do.
void check_disjoint(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end);

struct Item {
  uint32_t offset = 0;  // from the start of the region
  uint32_t length = 0;
};

extern const Uuid kParentLocatorItem;
enum class ItemId { kParameters, kSize, kDiskId, kLogicalSector, kPhysicalSector, kParent };

// Where the known items are. Throws for everything that is wrong with the table.
std::map<ItemId, Item> decode_items(ByteSpan table, uint64_t region_length);

struct Parameters {
  uint32_t block_bytes = 0;
  bool leave_allocated = false;  // a fixed image
  bool has_parent = false;
  uint64_t size = 0;
  Uuid disk_id;
  uint32_t logical_sector = 512;
  uint32_t physical_sector = 512;

  // Throws kInvalid that names the field.
  void check() const;
};

// The metadata table and its items after it, from the start of a new region on; LOCATOR is the
// parent's, empty for none.
std::vector<std::byte> encode_metadata(const Parameters& parameters, ByteSpan locator);

// Keys and values of the parent locator. Throws kInvalid.
std::map<std::string, std::string> decode_locator(ByteSpan item);
std::vector<std::byte> encode_locator(const std::map<std::string, std::string>& values);

enum State : unsigned {
  kNotPresent = 0,
  kUndefined = 1,
  kZeroBlock = 2,
  kUnmapped = 3,
  kReserved = 4,
  kOldUnmapped = 5,  // of a draft of the format
  kPresent = 6,
  kPartial = 7,
};

// One entry of the block allocation table.
struct Entry {
  uint64_t value = 0;

  static Entry make(State state, uint64_t offset) { return {offset | state}; }
  State state() const { return static_cast<State>(value & 7); }
  uint64_t offset() const { return value & ~(kMiB - 1); }
  bool has_data() const { return state() == kPresent || state() == kPartial; }
  bool reserved_bits() const { return (value & (kMiB - 1) & ~uint64_t{7}) != 0; }
};

// Where the entries of blocks are in the table.
struct Geometry {
  uint64_t blocks = 0;        // of payload
  uint64_t chunk_blocks = 1;  // payload blocks with one bitmap block
  uint64_t entries = 0;       // that the table must have

  static Geometry of(const Parameters& parameters);
  uint64_t chunks() const { return (blocks + chunk_blocks - 1) / chunk_blocks; }
  uint64_t index_of(uint64_t block) const { return block + block / chunk_blocks; }
  uint64_t bitmap_index(uint64_t chunk) const { return chunk * (chunk_blocks + 1) + chunk_blocks; }
};

// The header of an entry of the log.
struct LogEntry {
  static constexpr size_t kBytes = 64;
  static constexpr size_t kDescriptorBytes = 32;
  uint32_t checksum = 0;
  uint32_t length = 0;
  uint32_t tail = 0;
  uint64_t sequence = 0;
  uint32_t descriptors = 0;
  Uuid guid;
  uint64_t flushed_file = 0;
  uint64_t last_file = 0;
  uint64_t position = 0;  // in the log; not stored

  // Nothing when the signature is wrong.
  static std::optional<LogEntry> decode(ByteSpan sector);
  // Without the checksum.
  void encode(MutableByteSpan sector) const;
  uint64_t descriptor_sectors() const { return (uint64_t{descriptors} + 2 + 127) / 128; }
};

struct LogDescriptor {
  bool zero = false;
  uint64_t offset = 0;    // in the file
  uint64_t length = 0;    // of zeroes
  uint64_t leading = 0;   // the first eight bytes of the sector
  uint32_t trailing = 0;  // the last four
  uint64_t sequence = 0;

  static std::optional<LogDescriptor> decode(ByteSpan bytes);
};

}  // namespace cairn::vhdx
