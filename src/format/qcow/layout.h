#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"

// Header and table entries of a qcow image of version 1, free of I/O. Source: the format as QEMU's
// tools show it from outside; docs/formats/qcow.md lists the fields. All numbers are big-endian.
namespace cairn::qcow {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI", 0xfb
inline constexpr size_t kHeaderBytes = 48;
inline constexpr uint64_t kSector = 512;
inline constexpr uint64_t kMostL1Entries = 268'435'455;
// QEMU reads the whole table at once and can read no more.
inline constexpr uint64_t kMostL1Bytes = 2'147'483'136;
inline constexpr uint32_t kMostName = 1023;
inline constexpr uint32_t kNoCrypt = 0;
inline constexpr uint32_t kAes = 1;

struct Header {
  uint64_t backing_offset = 0;  // bytes; 0: there is no backing file
  uint32_t backing_bytes = 0;   // length of its name
  uint64_t size = 0;            // of the disk as stored, bytes
  uint8_t cluster_bits = 12;
  uint8_t l2_bits = 9;
  uint32_t crypt_method = kNoCrypt;
  uint64_t l1_offset = 0;  // bytes

  // Throws kInvalid, kUnsupported or kTooLarge with QEMU's words, and kIo for a table that QEMU
  // cannot read or that overlaps the header.
  // FILENAME is for the message that has no other words.
  static Header decode(ByteSpan bytes, const std::string& filename);
  void encode(MutableByteSpan bytes) const;
  // A header for a new disk of SIZE bytes above a backing file with this NAME (empty: none). Throws
  // kInvalid and kTooLarge for what could not be opened again.
  static Header fresh(uint64_t size, const std::string& name);

  uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  // Virtual size: what does not fill a sector cannot be seen.
  uint64_t disk_bytes() const { return size / kSector * kSector; }
  uint64_t l2_entries() const { return uint64_t{1} << l2_bits; }
  uint64_t l2_bytes() const { return l2_entries() * 8; }
  // Bytes of the disk that one L1 entry covers.
  uint64_t l2_range() const { return uint64_t{1} << (cluster_bits + l2_bits); }
  uint64_t l1_entries() const;
  uint64_t l1_end() const { return l1_offset + l1_entries() * 8; }
  // Whether [OFFSET, OFFSET + LENGTH) of the file touches header, backing name or L1 table.
  bool overlaps(uint64_t offset, uint64_t length) const;
};

// An L2 entry that says where a compressed cluster is: exact bytes, anywhere in the file.
struct CompressedPlace {
  static constexpr uint64_t kFlag = uint64_t{1} << 63;
  uint64_t offset = 0;
  uint64_t length = 0;  // 0 … cluster - 1

  static CompressedPlace decode(uint64_t entry, unsigned cluster_bits);
  // 0 when OFFSET does not fit with the length.
  uint64_t encode(unsigned cluster_bits) const;
};

}  // namespace cairn::qcow
