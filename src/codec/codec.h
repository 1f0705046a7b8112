// src/codec: compression of single clusters, on memory alone: deflate and zstd under two
// functions here; what only comes in images of others is decoded by stream.h, with ADC, LZO and
// LZFSE our own (window.h: what they share). May include src/base and the compression libraries.
#pragma once

#include <vector>

#include "base/bytes.h"

namespace cairn {

enum class Compression { kDeflate, kZstd };

// The levels that compress() takes, both included: more is smaller and slower.
struct LevelRange {
  int least;
  int most;
};
LevelRange levels_of(Compression kind);
// Throws kInvalid that names the range when LEVEL is outside of it.
void check_level(Compression kind, uint64_t level);

// PLAIN as one stream or frame of at most LIMIT bytes; empty when it does not fit. LEVEL 0 is the
// house's own choice. Thread-safe: every thread keeps its own working memory.
std::vector<std::byte> compress(Compression kind, ByteSpan plain, size_t limit, int level = 0);

// Fills OUT from what ENCODED begins with; what follows the stream is ignored. Raw deflate is cut
// at OUT's size, zstd frames must end there. Throws kIo when the data is damaged or too short.
void decompress(Compression kind, ByteSpan encoded, MutableByteSpan out);

// The same as a zlib stream, with header and checksum.
std::vector<std::byte> compress_zlib(ByteSpan plain, size_t limit, int level = 0);
// How many bytes of OUT the zlib stream at the start of ENCODED gave. Throws kCorrupt when it is
// damaged, cut, or has more than OUT takes.
size_t decompress_zlib(ByteSpan encoded, MutableByteSpan out);

}  // namespace cairn
