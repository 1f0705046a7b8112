#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

// The on-disk structures of qcow2, free of I/O. Source of all layouts: the published qcow2 format
// description ("docs/interop/qcow2" of QEMU); docs/formats/qcow2.md names the sections.
namespace cairn::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;
inline constexpr uint64_t kMaxL1Bytes = 32u << 20;
inline constexpr uint64_t kMaxRefcountTableBytes = 8u << 20;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint64_t kMaxSnapshotTableBytes = 64u << 20;
inline constexpr uint32_t kMaxSnapshotExtraBytes = 1024;
inline constexpr uint32_t kMaxBackingName = 1023;
inline constexpr uint32_t kMaxBitmaps = 65535;
inline constexpr uint64_t kMaxBitmapDirectoryBytes = 1024 * kMaxBitmaps;
inline constexpr size_t kMaxBitmapName = 1023;
// What is wrong where the counters offer the header for something new.
inline constexpr const char* kClusterAtZero =
    "Preventing invalid allocation of cluster at offset 0";
inline constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;  // L1 and standard L2 entries
inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kZeroFlag = 1;
inline constexpr uint64_t kMaxHostOffset = uint64_t{1} << 56;

inline constexpr uint64_t kIncompatDirty = 1 << 0;
inline constexpr uint64_t kIncompatCorrupt = 1 << 1;
inline constexpr uint64_t kIncompatDataFile = 1 << 2;
inline constexpr uint64_t kIncompatCompression = 1 << 3;
inline constexpr uint64_t kIncompatExtendedL2 = 1 << 4;
inline constexpr uint64_t kIncompatKnown = 0x1f;
inline constexpr uint64_t kCompatLazyRefcounts = 1 << 0;
inline constexpr uint64_t kAutoclearBitmaps = 1 << 0;
inline constexpr uint64_t kAutoclearRawData = 1 << 1;
inline constexpr uint64_t kAutoclearKnown = 0x3;

// The fixed header (72 bytes in version 2, at least 104 in version 3).
struct Header {
  static constexpr size_t kBytesV2 = 72;
  static constexpr size_t kBytesV3 = 112;  // what we write

  uint32_t version = 3;
  uint64_t backing_offset = 0;
  uint32_t backing_length = 0;
  uint32_t cluster_bits = 16;
  uint64_t size = 0;  // bytes; rounded down to a sector when read
  uint32_t crypt_method = 0;
  uint32_t l1_entries = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t refcount_order = 4;
  uint32_t header_length = kBytesV3;
  uint8_t compression_type = 0;    // 0 deflate, 1 zstd
  std::vector<std::byte> unknown;  // header bytes after those we know, kept

  // Decodes the start of an image. Throws kInvalid or kUnsupported with QEMU's wording when the
  // fields up to the compression type make no sense; UNKNOWN feature bits are the caller's.
  static Header decode(ByteSpan bytes);
  void encode(MutableByteSpan bytes) const;
  // The checks that need no more than the header, in QEMU's order, after decode(). FILE_BYTES is
  // the length of the file. FOR_CHECK leaves out what `check` reports itself.
  void validate(uint64_t file_bytes, bool for_check) const;

  uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  bool extended_l2() const { return (incompatible & kIncompatExtendedL2) != 0; }
  unsigned l2_entry_bytes() const { return extended_l2() ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_bytes() / l2_entry_bytes(); }
  // Guest bytes under one L2 table.
  uint64_t l2_range() const { return cluster_bytes() * l2_entries(); }
  uint64_t l1_entries_for(uint64_t bytes) const;
  unsigned refcount_bits() const { return 1u << refcount_order; }
  uint64_t refcounts_per_block() const { return cluster_bytes() * 8 / refcount_bits(); }
  uint64_t max_size() const;
};

struct UnknownExtension {
  uint32_t type;
  std::vector<std::byte> data;
};

struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_bytes = 0;
  uint64_t directory_offset = 0;
};

// What stands between the header and the backing file name in the first cluster.
struct Extensions {
  std::string backing_format;
  std::string data_file;
  std::optional<BitmapsExtension> bitmaps;
  bool stale_bitmaps = false;  // there was one, but the autoclear bit says that it is not true
  std::optional<std::pair<uint64_t, uint64_t>> crypto;  // offset and length of the LUKS header
  std::string feature_table;                            // the raw bytes, kept
  std::vector<UnknownExtension> unknown;
  std::string backing_name;

  // CLUSTER is the first cluster (zero-padded when the file is shorter). Throws as the header does.
  static Extensions decode(const Header& header, ByteSpan cluster);
};

// The whole first cluster; sets the backing offset and length in HEADER. Throws kNoSpace when it
// does not fit.
std::vector<std::byte> encode_first_cluster(Header& header, const Extensions& extensions);

// The names that the image itself or we know for feature bits of TYPE (0: incompatible).
std::string describe_features(uint64_t bits, const std::string& feature_table);

// A compressed cluster's place (L2 entry with bit 62).
struct CompressedPlace {
  uint64_t offset;
  uint64_t length;  // bytes to read: up to a sector's end
  static CompressedPlace decode(uint64_t entry, unsigned cluster_bits);
  static uint64_t encode(uint64_t offset, uint64_t length, unsigned cluster_bits);
};

struct SnapshotEntry {
  uint64_t l1_offset = 0;
  uint32_t l1_entries = 0;
  std::string id;
  std::string name;
  uint32_t date_seconds = 0;
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock = 0;  // ns
  uint64_t vm_state_bytes = 0;
  uint64_t disk_bytes = 0;
  std::optional<uint64_t> icount;
  std::vector<std::byte> unknown;  // extra data after what we know, kept
  size_t encoded_bytes = 0;        // with padding
  // Decodes entry NUMBER at the start of BYTES. Throws kInvalid.
  static SnapshotEntry decode(ByteSpan bytes, size_t number, uint64_t current_size);
  // Appends the entry, padded to 8 bytes.
  void encode(std::vector<std::byte>& table) const;
};

struct BitmapEntry {
  uint64_t table_offset = 0;
  uint32_t table_entries = 0;
  uint32_t flags = 0;
  uint8_t granularity_bits = 0;
  std::string name;
  size_t encoded_bytes = 0;
  static constexpr uint32_t kInUse = 1;
  static constexpr uint32_t kAuto = 2;
  static BitmapEntry decode(ByteSpan bytes, const Header& header);
  // Appends the entry, padded to 8 bytes.
  void encode(std::vector<std::byte>& directory) const;
};

// Reads or writes counter INDEX of a refcount block with counters of 1 << ORDER bits.
uint64_t get_refcount(ByteSpan block, uint64_t index, unsigned order);
void set_refcount(MutableByteSpan block, uint64_t index, unsigned order, uint64_t value);

}  // namespace cairn::qcow2
