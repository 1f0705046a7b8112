// src/format/dmg: Apple disk images (UDIF), read only. layout.h holds the trailer and the block
// tables as pure types, plist.h reads the property list that carries the tables, node.h is the open
// image; driver.cc registers the format. May include src/block, src/codec, pugixml and below.
#pragma once

#include <vector>

#include "block/chunked_node.h"
#include "format/dmg/layout.h"

namespace cairn {

// An open UDIF image. The runs of the disk are kept in memory, in its order: tables are at most as
// large as their limits in the file, kMaxPlistBytes or kMaxForkBytes.
class DmgNode : public ChunkedNode {
 public:
  using ChunkedNode::ChunkedNode;

  // Finds the trailer and reads all tables. Throws.
  Task<void> load(OpenContext& request);

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<EncodedChunk> chunk(uint64_t number) override;
  void decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const override;
  std::string name_of(uint64_t number) const override;

 private:
  enum class Kind : uint8_t {
    kZero,
    kRaw,
    kAdc,
    kZlib,
    kBzip2,
    kLzfse,
    kXz,
    // What cannot be read:
    kUnknown,
    kBroken,
    kMissing
  };
  // Sectors in a row that have one source; together they cover the disk.
  struct Run {
    uint64_t begin = 0;  // sectors of the disk
    uint64_t end = 0;
    uint64_t host_offset = 0;
    uint32_t host_bytes = 0;
    Kind kind = Kind::kMissing;
  };

  Task<dmg::Trailer> find_trailer();
  void add_table(ByteSpan bytes, const dmg::Trailer& trailer);
  void add_chunk(const dmg::Chunk& chunk, const dmg::BlockTable& table,
                 const dmg::Trailer& trailer);
  static Kind kind_of(dmg::ChunkType type);
  void cover(uint64_t sectors);
  size_t run_at(uint64_t sector) const;

  std::vector<Run> runs_;
  bool any_table_ = false;
  bool warned_ = false;
};

}  // namespace cairn
