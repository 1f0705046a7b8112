#include "format/packed/blocks_node.h"

#include <algorithm>

#include "async/cancel.h"
#include "block/context.h"

namespace cairn::packed {
namespace {

// How much of an index is read at a time.
constexpr size_t kIndexPieceBytes = 64 << 10;
constexpr uint64_t kBlockCacheBytes = 128 << 20;

// As many blocks as the processors take are unpacked ahead, where the cache has room for them.
ChunkCache cache_for(Context& context, const std::vector<PackedBlock>& blocks) {
  const uint64_t largest = std::ranges::max(blocks, {}, &PackedBlock::bytes).bytes;
  const uint64_t fitting = kBlockCacheBytes / largest - 1;
  const unsigned workers = context.runtime().worker_count();
  return {.bytes = kBlockCacheBytes,
          .ahead = static_cast<unsigned>(std::min<uint64_t>(fitting, workers)),
          .ahead_bytes = largest,
          .parallel = true};
}

}  // namespace

Task<std::vector<PackedBlock>> find_blocks(NodePtr file, Packing packing) {
  const uint64_t end = file->length();
  std::vector<std::byte> piece(kIndexPieceBytes);
  std::vector<PackedBlock> blocks;
  try {
    const auto reader = make_block_index_reader(packing, end);
    if (!reader) co_return blocks;
    while (const auto at = reader->wanted()) {
      if (file->context().cancel != nullptr) file->context().cancel->check();
      if (*at >= end) co_return blocks;
      const MutableByteSpan part =
          MutableByteSpan(piece).first(std::min<uint64_t>(piece.size(), end - *at));
      co_await file->read(*at, part);
      reader->take(part);
    }
    blocks = reader->blocks();
  } catch (const Error& error) {
    // Unpacking from the beginning says what is wrong, or does without an index.
    if (error.kind() != ErrorKind::kUnsupported) throw;
  }
  co_return blocks;
}

BlocksNode::BlocksNode(Context& context, const Driver& driver, NodePtr file, Packing packing,
                       std::vector<PackedBlock> blocks)
    : ChunkedNode(context, driver, std::move(file), cache_for(context, blocks)),
      packing_(packing),
      blocks_(std::move(blocks)) {
  set_filename(this->file().filename());
  set_read_only(true);
  set_unbounded(true);
  set_length(blocks_.back().offset + blocks_.back().bytes);
}

Task<Mapping> BlocksNode::map(uint64_t offset, uint64_t length) {
  const auto next = std::ranges::upper_bound(blocks_, offset, {}, &PackedBlock::offset);
  const PackedBlock& block = *std::prev(next);
  Mapping result;
  result.kind = Mapping::Kind::kEncoded;
  result.compressed = true;
  result.length = std::min(length, block.offset + block.bytes - offset);
  result.token = static_cast<uint64_t>(std::prev(next) - blocks_.begin());
  co_return result;
}

Task<EncodedChunk> BlocksNode::chunk(uint64_t number) {
  EncodedChunk result;
  if (number < blocks_.size()) {
    const PackedBlock& block = blocks_[number];
    result = {.offset = block.offset,
              .bytes = block.bytes,
              .host_offset = block.host_offset,
              .host_bytes = block.host_bytes,
              .token = number};
  }
  co_return result;
}

void BlocksNode::decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const {
  unpack_block(packing_, blocks_[chunk.token], encoded, out);
}

std::string BlocksNode::name_of(uint64_t number) const { return "block " + std::to_string(number); }

Value BlocksNode::specific_info() const {
  Value result = Value::object();
  result.set("compression", to_string(packing_));
  result.set("packed-size", file().length());
  result.set("blocks", blocks_.size());
  return result;
}

}  // namespace cairn::packed
