// src/codec: compression of single clusters, on memory alone: deflate and zstd behind two
// functions. May include src/base and the compression libraries.
#pragma once

#include <vector>

#include "base/bytes.h"

namespace cairn {

enum class Compression { kDeflate, kZstd };

// PLAIN as one stream or frame of at most LIMIT bytes; empty when it does not fit. Thread-safe:
// every thread keeps its own working memory.
std::vector<std::byte> compress(Compression kind, ByteSpan plain, size_t limit);

// Fills OUT from what ENCODED begins with; what follows the stream is ignored. Raw deflate is cut
// at OUT's size, zstd frames must end there. Throws kIo when the data is damaged or too short.
void decompress(Compression kind, ByteSpan encoded, MutableByteSpan out);

}  // namespace cairn
