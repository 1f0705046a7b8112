#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/bytes.h"

// The structures of a UDIF image, free of I/O; all are big-endian, a sector has 512 bytes. Source:
// the published descriptions of the format; docs/formats/dmg.md lists the fields.
namespace cairn::dmg {

inline constexpr uint64_t kSector = 512;
inline constexpr size_t kTrailerBytes = 512;
inline constexpr uint32_t kTrailerMagic = 0x6b6f6c79;  // "koly"
inline constexpr uint64_t kMaxPlistBytes = 16 << 20;
inline constexpr uint64_t kMaxForkBytes = 64 << 20;  // of a resource fork's data
inline constexpr uint64_t kMaxChunkSectors = 131072;
inline constexpr uint64_t kMaxStoredBytes = 64 << 20;
inline constexpr uint64_t kMaxDiskBytes = 0x7fffffffc0000000;

// Where the trailer may begin in a file of FILE_BYTES: QEMU looks for its magic in these bytes,
// which are the last but 508 of the file's last two sectors.
struct Window {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
Window trailer_window(uint64_t file_bytes);

struct Trailer {
  uint64_t data_offset = 0;  // of the data fork, to which offsets of chunks are relative
  uint64_t resource_offset = 0;
  uint64_t resource_bytes = 0;  // 0: there is none
  uint32_t segments = 0;
  uint64_t plist_offset = 0;
  uint64_t plist_bytes = 0;  // 0: there is none
  uint64_t sectors = 0;      // of the disk

  // BYTES are the kTrailerBytes from the magic on; OFFSET is their place in the file. Throws
  // kInvalid with what is wrong.
  static Trailer decode(ByteSpan bytes, uint64_t offset);
};

enum class ChunkType : uint32_t {
  kZero = 0,
  kRaw = 1,
  kIgnore = 2,
  kAdc = 0x80000004,
  kZlib = 0x80000005,
  kBzip2 = 0x80000006,
  kLzfse = 0x80000007,
  kXz = 0x80000008,
  kComment = 0x7ffffffe,
  kTerminator = 0xffffffff,
};
bool is_known(ChunkType type);
// Whether the chunk has sectors of the disk without bytes in the file.
bool is_zero(ChunkType type);

struct Chunk {
  ChunkType type = ChunkType::kZero;
  uint64_t first_sector = 0;  // within its table's part of the disk
  uint64_t sectors = 0;
  uint64_t offset = 0;  // within the data fork, after the table's data_start
  uint64_t bytes = 0;   // stored
};

// A "mish" table: what a part of the disk is made of.
struct BlockTable {
  uint64_t first_sector = 0;
  uint64_t data_start = 0;
  uint32_t claimed = 0;  // how many chunks the table says it has; what its length says counts
  std::vector<Chunk> chunks;

  // Nothing when BYTES are something else. Throws kInvalid when a chunk is larger than is allowed.
  static std::optional<BlockTable> decode(ByteSpan bytes);
};

// Calls RECORD with every record of the data of a resource fork. FORK begins with the fork's header
// and has all of its data. Throws kInvalid when lengths contradict each other.
void each_record(ByteSpan fork, const std::function<void(ByteSpan)>& record);
// Of the header at the start of FORK, which has FORK_BYTES: how many bytes of it each_record()
// needs. Throws kInvalid.
uint64_t fork_extent(ByteSpan header, uint64_t fork_bytes);
inline constexpr size_t kForkHeaderBytes = 16;

}  // namespace cairn::dmg
