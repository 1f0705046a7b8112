#pragma once

#include <cstdint>

#include "base/bytes.h"

// The header of a Bochs redolog, free of I/O. Source: the layout in Bochs' documentation ("Redolog
// files"); docs/formats/bochs.md lists the fields. All numbers are little-endian.
namespace cairn::bochs {

inline constexpr uint64_t kSector = 512;
inline constexpr size_t kHeaderBytes = 512;
inline constexpr uint32_t kMaxCatalog = 0x100000;
inline constexpr uint32_t kMaxExtentBytes = 0x800000;
inline constexpr uint32_t kFree = 0xffffffff;  // the extent was never written

enum class Kind {
  kGrowing,   // what was never written is zero
  kUndoable,  // is in the base; kept between runs
  kVolatile,  // the same, for one run
};

struct Header {
  Kind kind = Kind::kGrowing;
  uint32_t header_bytes = 0;  // the catalog follows
  uint32_t entries = 0;       // of the catalog
  uint32_t bitmap_bytes = 0;  // of every extent
  uint32_t extent_bytes = 0;
  uint64_t size = 0;  // virtual size, bytes, a multiple of 512

  // Whether the first bytes of a file are those of a redolog: of one of ALL_KINDS or, as QEMU has
  // it, of a growing one.
  static bool recognises(ByteSpan head, bool all_kinds);
  // Throws kInvalid in the order and with the words of QEMU, then for what QEMU lets pass.
  // FILE_BYTES is the length of the file.
  static Header decode(ByteSpan sector, uint64_t file_bytes, bool all_kinds);

  uint64_t data_begin() const { return header_bytes + uint64_t{4} * entries; }
  // In the file: an extent's bitmap, of whole sectors, and then its data.
  uint64_t bitmap_room() const { return (uint64_t{bitmap_bytes} + 511) / 512 * 512; }
  uint64_t stride() const { return bitmap_room() + extent_bytes; }
};

}  // namespace cairn::bochs
