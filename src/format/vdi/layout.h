#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/uuid.h"

// The header of a VDI image, free of I/O. Source: the layout that VirtualBox documents in its
// public headers; docs/formats/vdi.md lists the fields.
namespace cairn::vdi {

inline constexpr uint32_t kMagic = 0xbeda107f;
inline constexpr uint32_t kVersion = 0x00010001;
inline constexpr size_t kHeaderBytes = 512;
inline constexpr uint64_t kBlockBytes = 1 << 20;
inline constexpr uint32_t kMaxBlocks = 0x1fffff80;
inline constexpr uint64_t kMaxSize = uint64_t{kMaxBlocks} * kBlockBytes;
inline constexpr uint32_t kFree = 0xffffffff;  // never written
inline constexpr uint32_t kZero = 0xfffffffe;  // known to be zeroes

inline constexpr uint32_t kDynamic = 1;
inline constexpr uint32_t kStatic = 2;
inline constexpr uint32_t kUndo = 3;
inline constexpr uint32_t kDifferencing = 4;

struct Header {
  uint32_t type = kDynamic;
  uint64_t map_offset = kHeaderBytes;  // of the block map in the file
  uint64_t data_offset = 0;            // of block 0
  uint64_t size = 0;                   // virtual size, bytes, a multiple of 512
  uint32_t blocks = 0;                 // entries of the map
  uint32_t allocated = 0;              // blocks in the file
  Uuid created, modified;
  Uuid parent, parent_modified;  // of undo and differencing images; null: none is named
  // The sector as it was read: what we do not know is kept.
  std::array<std::byte, kHeaderBytes> raw{};

  // Throws kInvalid or kUnsupported in the order and with the words of QEMU, then for what QEMU
  // lets pass. FILE_BYTES is the length of the file. SNAPSHOTS: images with a parent, which QEMU
  // refuses, are taken.
  static Header decode(ByteSpan sector, uint64_t file_bytes, bool snapshots = false);
  void encode(MutableByteSpan sector) const;
  // A header for a new disk of SIZE bytes. Throws kUnsupported when it is too large.
  static Header fresh(uint64_t size, bool fixed);

  bool has_parent() const { return !parent.is_null(); }
  uint64_t map_bytes() const { return (uint64_t{blocks} * 4 + 511) / 512 * 512; }
};

}  // namespace cairn::vdi
