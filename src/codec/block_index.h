#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "codec/unpack.h"

namespace cairn {

// A piece of a packed file that can be unpacked by itself: a block of an .xz file, a zstd frame.
struct PackedBlock {
  uint64_t offset = 0;       // of the content, bytes
  uint64_t bytes = 0;        // of content, never 0
  uint64_t host_offset = 0;  // of the file
  uint64_t host_bytes = 0;
  uint32_t check = 0;  // the kind of an .xz block's checksum
};

// Larger ones, and more of them, are not unpacked where they are.
constexpr uint64_t kMostPackedBlockBytes = 64 << 20;
constexpr size_t kMostPackedBlocks = 1 << 20;

// Finds the blocks of a packed file by the index that it has at its end: .xz has one for each
// stream, zstd where it was packed in the seekable format. Its memory is bounded.
class BlockIndexReader {
 public:
  virtual ~BlockIndexReader() = default;
  // Where the bytes of the file begin that are read next; nothing when all was read.
  virtual std::optional<uint64_t> wanted() const = 0;
  // BYTES of the file from there on, at least one. Throws kCorrupt or kUnsupported where there is
  // no index that can be used.
  virtual void take(ByteSpan bytes) = 0;
  // All blocks in order, once nothing is wanted: they cover the content and are inside the file.
  // Throws as take().
  virtual std::vector<PackedBlock> blocks() const = 0;
};
// Null where files that are packed so have none. FILE_BYTES: how long the file is.
std::unique_ptr<BlockIndexReader> make_block_index_reader(Packing packing, uint64_t file_bytes);

// Fills OUT, BLOCK.bytes long, from ENCODED, the block in the file. Throws kCorrupt. Takes no more
// memory than OUT and some MiB. Thread-safe.
void unpack_block(Packing packing, const PackedBlock& block, ByteSpan encoded, MutableByteSpan out);

}  // namespace cairn
