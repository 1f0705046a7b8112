// Packed files of strangers: the first byte chooses the packing, and whether the file is unpacked
// from its beginning or its blocks are by the index; the second where it is cut into pieces.
#include <vector>

#include "codec/block_index.h"
#include "codec/unpack.h"

namespace {

void unpack_all(cairn::Packing packing, cairn::ByteSpan all, size_t cut) {
  const auto unpacker = cairn::make_unpacker(packing);
  std::vector<std::byte> buffer(4096);
  size_t made = 0;
  for (const bool last : {false, true}) {
    cairn::ByteSpan in = last ? all.subspan(cut) : all.first(cut);
    while (made < (8 << 20)) {
      cairn::MutableByteSpan room(buffer);
      unpacker->step(in, room, last);
      made += buffer.size() - room.size();
      if (in.empty() && !room.empty()) break;
    }
  }
}

void unpack_blocks(cairn::Packing packing, cairn::ByteSpan all, size_t piece) {
  const auto reader = cairn::make_block_index_reader(packing, all.size());
  if (!reader) return;
  while (const auto at = reader->wanted()) {
    if (*at >= all.size()) return;
    reader->take(all.subspan(*at, std::min<size_t>(piece + 16, all.size() - *at)));
  }
  uint64_t offset = 0;
  for (const cairn::PackedBlock& block : reader->blocks()) {
    if (block.offset != offset || block.bytes == 0 || block.host_offset > all.size() ||
        block.host_bytes > all.size() - block.host_offset)
      __builtin_trap();
    offset += block.bytes;
    if (block.bytes > (1 << 20)) continue;
    std::vector<std::byte> out(block.bytes);
    try {
      cairn::unpack_block(packing, block, all.subspan(block.host_offset, block.host_bytes), out);
    } catch (const cairn::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto packing = static_cast<cairn::Packing>(data[0] % 4);
  const cairn::ByteSpan all = std::as_bytes(std::span(data + 2, size - 2));
  try {
    if (data[0] < 128)
      unpack_all(packing, all, std::min<size_t>(data[1], all.size()));
    else
      unpack_blocks(packing, all, data[1]);
  } catch (const cairn::Error&) {
  }
  return 0;
}
