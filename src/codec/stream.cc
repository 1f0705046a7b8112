#include "codec/stream.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>

#include <climits>
#include <new>

#include "codec/codec.h"
#include "codec/window.h"

namespace cairn {
namespace {

using codec::damaged;

// What `xz -9` needs, twice.
constexpr uint64_t kXzMemory = 128 << 20;

[[noreturn]] void wrong_length() { damaged("A compressed stream has the wrong length."); }

void decode_bzip2(ByteSpan encoded, MutableByteSpan out) {
  bz_stream stream = {};
  if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<char*>(const_cast<std::byte*>(encoded.data()));
  stream.avail_in = static_cast<unsigned>(encoded.size());
  stream.next_out = reinterpret_cast<char*>(out.data());
  stream.avail_out = static_cast<unsigned>(out.size());
  const int result = BZ2_bzDecompress(&stream);
  const bool full = stream.avail_out == 0;
  BZ2_bzDecompressEnd(&stream);
  if (result == BZ_MEM_ERROR) throw std::bad_alloc();
  if (result != BZ_STREAM_END && result != BZ_OK) damaged("A bzip2 stream is damaged.");
  if (result != BZ_STREAM_END || !full) wrong_length();
}

void decode_xz(ByteSpan encoded, MutableByteSpan out) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_auto_decoder(&stream, kXzMemory, 0) != LZMA_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<const uint8_t*>(encoded.data());
  stream.avail_in = encoded.size();
  stream.next_out = reinterpret_cast<uint8_t*>(out.data());
  stream.avail_out = out.size();
  lzma_ret result = LZMA_OK;
  while (result == LZMA_OK) result = lzma_code(&stream, LZMA_FINISH);
  const bool full = stream.avail_out == 0;
  lzma_end(&stream);
  if (result == LZMA_MEM_ERROR) throw std::bad_alloc();
  if (result == LZMA_MEMLIMIT_ERROR) damaged("An xz stream needs more than 128 MiB of memory.");
  if (result != LZMA_STREAM_END && result != LZMA_BUF_ERROR) damaged("An xz stream is damaged.");
  if (result != LZMA_STREAM_END || !full) wrong_length();
}

void decode_lz4(ByteSpan encoded, MutableByteSpan out) {
  if (encoded.size() > INT_MAX || out.size() > INT_MAX) wrong_length();
  const int made = LZ4_decompress_safe(
      reinterpret_cast<const char*>(encoded.data()), reinterpret_cast<char*>(out.data()),
      static_cast<int>(encoded.size()), static_cast<int>(out.size()));
  if (made < 0) damaged("An LZ4 block is damaged.");
  if (static_cast<size_t>(made) != out.size()) wrong_length();
}

}  // namespace

void decode_stream(StreamKind kind, ByteSpan encoded, MutableByteSpan out) {
  switch (kind) {
    case StreamKind::kZlib:
      if (decompress_zlib(encoded, out) != out.size()) wrong_length();
      return;
    case StreamKind::kBzip2:
      return decode_bzip2(encoded, out);
    case StreamKind::kXz:
      return decode_xz(encoded, out);
    case StreamKind::kLz4:
      return decode_lz4(encoded, out);
    case StreamKind::kLzo:
      return codec::decode_lzo(encoded, out);
    case StreamKind::kLzfse:
      return codec::decode_lzfse(encoded, out);
    case StreamKind::kAdc:
      return codec::decode_adc(encoded, out);
  }
}

}  // namespace cairn
