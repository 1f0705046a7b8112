#pragma once

#include "base/bytes.h"

namespace cairn {

// Streams that images of others are made of; they are only decoded.
enum class StreamKind {
  kZlib,   // RFC 1950
  kBzip2,  // one bzip2 stream
  kXz,     // one .xz stream, or one in the older .lzma container
  kLz4,    // an LZ4 block without a frame
  kLzo,    // LZO1X
  kLzfse,  // blocks up to "bvx$"; LZVN among them
  kAdc,    // Apple Data Compression
};

// Fills all of OUT from the stream at the start of ENCODED; what follows the stream is ignored,
// but for LZ4, which has no end of its own. Throws kCorrupt when the stream is damaged, or gives
// fewer or more bytes. Takes no more memory than the kind needs, at most 128 MiB. Thread-safe.
void decode_stream(StreamKind kind, ByteSpan encoded, MutableByteSpan out);

// The parts of decode_stream() that are ours.
namespace codec {
void decode_adc(ByteSpan encoded, MutableByteSpan out);
void decode_lzo(ByteSpan encoded, MutableByteSpan out);
void decode_lzfse(ByteSpan encoded, MutableByteSpan out);
}  // namespace codec

}  // namespace cairn
