#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/uuid.h"

// Header and format extension of a Parallels image, free of I/O. Source: the layout that Virtuozzo
// publishes with its tool ploop; docs/formats/parallels.md lists the fields. All numbers are
// little-endian.
namespace cairn::parallels {

inline constexpr uint64_t kSector = 512;
inline constexpr size_t kHeaderBytes = 64;         // the table follows at once
inline constexpr uint32_t kInUse = 0x746f6e59;     // written to, and not closed yet
inline constexpr uint32_t kClosed = 0x312e3276;    // closed by software that knows the extension
inline constexpr uint32_t kFlagEmpty = 1;          // the whole disk is zero
inline constexpr uint32_t kMaxTracks = 4'186'127;  // sectors of a cluster
inline constexpr uint32_t kMaxEntries = 536'870'911;
inline constexpr uint64_t kMaxTableBytes = 2'147'483'136;  // header and table
inline constexpr uint64_t kMaxSize = (uint64_t{1} << 63) - (uint64_t{1} << 30);
inline constexpr uint64_t kDefaultClusterBytes = 1 << 20;

// Whether these first bytes of a file are those of an image, of either kind.
bool is_image(ByteSpan head);

struct Header {
  bool extended = true;  // "WithouFreSpacExt": entries count clusters; else they count sectors
  uint32_t heads = 16;
  uint32_t cylinders = 0;
  uint32_t tracks = 0;   // sectors of a cluster
  uint32_t entries = 0;  // of the table
  uint64_t sectors = 0;  // of the disk, as stored
  uint32_t in_use = 0;
  uint32_t data_off = 0;  // sectors
  uint32_t flags = 0;
  uint64_t ext_off = 0;  // sectors; 0: there is no extension

  // Throws kInvalid or kTooLarge in the order and with the words of QEMU, then for what QEMU lets
  // pass. FILE_BYTES is the length of the file.
  static Header decode(ByteSpan bytes, uint64_t file_bytes);
  void encode(MutableByteSpan bytes) const;
  // A header for a new disk of SIZE bytes. Throws kInvalid for what could not be opened again.
  static Header fresh(uint64_t size, uint64_t cluster_bytes);

  uint64_t cluster_bytes() const { return tracks * kSector; }
  // Virtual size in bytes.
  uint64_t size() const;
  // What an entry of the table counts, in bytes.
  uint64_t unit() const { return extended ? cluster_bytes() : kSector; }
  uint64_t table_end() const { return kHeaderBytes + uint64_t{4} * entries; }
  // No cluster begins below.
  uint64_t least_data() const;
  // Where the data begins according to the header; nothing when that cannot be.
  std::optional<uint64_t> data_begin(uint64_t file_bytes) const;
};

// A dirty bitmap of the format extension.
struct BitmapFeature {
  Uuid id;
  uint64_t granularity = 0;  // bytes
  // Per cluster of bits: 0 all clear, 1 all set, else the sector at which it lies.
  std::vector<uint64_t> table;
};

// What the cluster at ext_off holds.
struct Extension {
  std::vector<BitmapFeature> bitmaps;

  // CLUSTER is the whole one, HEADER that of its image. Throws with QEMU's words: kUnsupported for
  // a section that must not be lost, kInvalid for everything else. SKIP_UNKNOWN passes over
  // sections that may be lost.
  static Extension decode(ByteSpan cluster, const Header& header, bool skip_unknown);
};

}  // namespace cairn::parallels
