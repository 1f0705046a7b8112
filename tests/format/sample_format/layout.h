#pragma once

#include "base/arith.h"
#include "base/bytes.h"

// What is on the disk, free of I/O: a header of one sector, a table with a place for each block of
// the disk, and the blocks. Numbers are little-endian.
namespace cairn::sample {

inline constexpr uint64_t kMagic = 0x454c504d41533a43;  // "C:SAMPLE"
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 512;
inline constexpr uint64_t kBlockBytes = 64 << 10;
inline constexpr uint64_t kTableOffset = 4096;
// The table has room for the largest disk from the start: resizing changes the header alone.
inline constexpr uint32_t kMaxBlocks = 1 << 18;
inline constexpr uint64_t kMaxSize = kMaxBlocks * kBlockBytes;
inline constexpr uint64_t kDataOffset = align_up(kTableOffset + kMaxBlocks * 4, kBlockBytes);

// An entry of the table: 0 for a block of zeroes, else the number of its place, counted from 1.
inline constexpr uint32_t kZero = 0;
inline uint64_t host_of(uint32_t entry) { return kDataOffset + (entry - 1) * kBlockBytes; }

struct Header {
  uint64_t size = 0;  // of the disk, bytes

  static bool recognises(ByteSpan head) {
    return head.size() >= kHeaderBytes && load_le<uint64_t>(head, 0) == kMagic;
  }
  // Throws kInvalid, as encode() does.
  static Header decode(ByteSpan sector) {
    if (!recognises(sector)) invalid("no header of the sample format");
    const auto version = load_le<uint32_t>(sector, 8);
    if (version != kVersion) invalid("unknown version " + std::to_string(version));
    const Header header{.size = load_le<uint64_t>(sector, 16)};
    header.validate();
    return header;
  }
  std::vector<std::byte> encode() const {
    validate();
    std::vector<std::byte> sector(kHeaderBytes);
    store_le<uint64_t>(sector, 0, kMagic);
    store_le<uint32_t>(sector, 8, kVersion);
    store_le<uint64_t>(sector, 16, size);
    return sector;
  }
  void validate() const {
    if (size > kMaxSize) invalid("the disk is larger than " + std::to_string(kMaxSize) + " bytes");
  }
  uint64_t blocks() const { return div_ceil(size, kBlockBytes); }
};

}  // namespace cairn::sample
