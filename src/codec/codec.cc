#include "codec/codec.h"

#include <fmt/core.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>
#include <new>

#include "codec/window.h"

namespace cairn {

void codec::damaged(const char* what) {
  throw Error(ErrorKind::kCorrupt, "Input/output error").hint(what);
}

namespace {

using codec::damaged;

// libdeflate's level 2 gives streams no larger than zlib's default, in a fraction of its time.
constexpr int kDeflateLevel = 2;
// Whole zlib streams are measured by those that zlib makes with its whole window.
constexpr int kZlibLevel = 5;
constexpr int kZstdLevel = 3;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T>
T* required(T* object) {
  if (object == nullptr) throw std::bad_alloc();
  return object;
}

struct Contexts {
  std::unique_ptr<libdeflate_compressor, Deleter<libdeflate_free_compressor>> deflate;
  int deflate_level = 0;
  std::unique_ptr<libdeflate_decompressor, Deleter<libdeflate_free_decompressor>> inflate;
  std::unique_ptr<ZSTD_CCtx, Deleter<ZSTD_freeCCtx>> zstd;
  std::unique_ptr<ZSTD_DCtx, Deleter<ZSTD_freeDCtx>> unzstd;
  std::unique_ptr<std::byte[]> scratch;
  size_t scratch_bytes = 0;
};
thread_local Contexts contexts;

// Where something is compressed to until its length is known. Kept: fresh memory is cleared first.
MutableByteSpan scratch(size_t bytes) {
  if (contexts.scratch_bytes < bytes) {
    contexts.scratch_bytes = 0;
    contexts.scratch = std::make_unique_for_overwrite<std::byte[]>(bytes);
    contexts.scratch_bytes = bytes;
  }
  return {contexts.scratch.get(), bytes};
}

libdeflate_compressor* deflater(int level) {
  const int wanted = level == 0 ? kDeflateLevel : level;
  if (!contexts.deflate || contexts.deflate_level != wanted)
    contexts.deflate.reset(required(libdeflate_alloc_compressor(wanted)));
  contexts.deflate_level = wanted;
  return contexts.deflate.get();
}

// A stream that yields more than a cluster is cut; libdeflate does not promise what it wrote until
// it noticed, zlib does.
void inflate_cut(ByteSpan encoded, MutableByteSpan out) {
  z_stream stream = {};
  if (inflateInit2(&stream, -15) != Z_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(encoded.data()));
  stream.avail_in = static_cast<uInt>(encoded.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = ::inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  inflateEnd(&stream);
  if (!full || (result != Z_STREAM_END && result != Z_BUF_ERROR && result != Z_OK))
    damaged("A deflate-compressed cluster is damaged.");
}

void inflate_cluster(ByteSpan encoded, MutableByteSpan out) {
  if (!contexts.inflate) contexts.inflate.reset(required(libdeflate_alloc_decompressor()));
  size_t used = 0;
  size_t made = 0;
  const libdeflate_result result = libdeflate_deflate_decompress_ex(
      contexts.inflate.get(), encoded.data(), encoded.size(), out.data(), out.size(), &used, &made);
  if (result == LIBDEFLATE_SUCCESS && made == out.size()) return;
  if (result == LIBDEFLATE_INSUFFICIENT_SPACE) return inflate_cut(encoded, out);
  damaged("A deflate-compressed cluster is damaged.");
}

void unzstd_cluster(ByteSpan encoded, MutableByteSpan out) {
  if (!contexts.unzstd) contexts.unzstd.reset(required(ZSTD_createDCtx()));
  ZSTD_DCtx* context = contexts.unzstd.get();
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  ZSTD_inBuffer in{encoded.data(), encoded.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  // Several frames may follow each other; the one that fills the cluster must end there.
  while (true) {
    const size_t before_in = in.pos;
    const size_t before_out = to.pos;
    const size_t left = ZSTD_decompressStream(context, &to, &in);
    if (ZSTD_isError(left)) damaged(ZSTD_getErrorName(left));
    if (left == 0 && to.pos == to.size) return;
    if (in.pos == before_in && to.pos == before_out)
      damaged("A zstd-compressed cluster has the wrong length.");
  }
}

}  // namespace

LevelRange levels_of(Compression kind) {
  // zstd has levels below 1, faster still and larger; at 1 it is no bottleneck any more.
  if (kind == Compression::kZstd) return {1, ZSTD_maxCLevel()};
  return {1, 12};
}

void check_level(Compression kind, uint64_t level) {
  const LevelRange range = levels_of(kind);
  if (level >= static_cast<uint64_t>(range.least) && level <= static_cast<uint64_t>(range.most))
    return;
  throw Error(ErrorKind::kInvalid,
              fmt::format("compression_level for {} must be between {} and {}",
                          kind == Compression::kZstd ? "zstd" : "zlib", range.least, range.most));
}

std::vector<std::byte> compress(Compression kind, ByteSpan plain, size_t limit, int level) {
  const MutableByteSpan out = scratch(limit);
  size_t made = 0;
  if (kind == Compression::kDeflate) {
    made = libdeflate_deflate_compress(deflater(level), plain.data(), plain.size(), out.data(),
                                       out.size());
  } else {
    if (!contexts.zstd) contexts.zstd.reset(required(ZSTD_createCCtx()));
    made = ZSTD_compressCCtx(contexts.zstd.get(), out.data(), out.size(), plain.data(),
                             plain.size(), level == 0 ? kZstdLevel : level);
    if (ZSTD_isError(made)) made = 0;
  }
  return {out.begin(), out.begin() + static_cast<ptrdiff_t>(made)};
}

void decompress(Compression kind, ByteSpan encoded, MutableByteSpan out) {
  if (kind == Compression::kDeflate)
    inflate_cluster(encoded, out);
  else
    unzstd_cluster(encoded, out);
}

std::vector<std::byte> compress_zlib(ByteSpan plain, size_t limit, int level) {
  const MutableByteSpan out = scratch(limit);
  const size_t made = libdeflate_zlib_compress(deflater(level == 0 ? kZlibLevel : level),
                                               plain.data(), plain.size(), out.data(), out.size());
  return {out.begin(), out.begin() + static_cast<ptrdiff_t>(made)};
}

size_t decompress_zlib(ByteSpan encoded, MutableByteSpan out) {
  if (!contexts.inflate) contexts.inflate.reset(required(libdeflate_alloc_decompressor()));
  size_t used = 0;
  size_t made = 0;
  const libdeflate_result result = libdeflate_zlib_decompress_ex(
      contexts.inflate.get(), encoded.data(), encoded.size(), out.data(), out.size(), &used, &made);
  if (result != LIBDEFLATE_SUCCESS) damaged("A zlib stream is damaged.");
  return made;
}

}  // namespace cairn
