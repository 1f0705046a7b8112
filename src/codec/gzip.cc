#include "codec/gzip.h"

#include <zlib.h>

#include <algorithm>

#include "base/error.h"

namespace cairn {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window, in gzip's wrapping
constexpr size_t kGzipPiece = 64 << 10;

uInt zlib_count(size_t bytes) { return static_cast<uInt>(std::min<size_t>(bytes, 1 << 30)); }
Bytef* zlib_bytes(ByteSpan span) {
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(span.data()));
}

}  // namespace

struct GzipWriter::State {
  z_stream stream{};
};

GzipWriter::GzipWriter(int level) : state_(std::make_unique<State>()) {
  if (::deflateInit2(&state_->stream, level, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) !=
      Z_OK)
    throw Error(ErrorKind::kNoMemory, "no memory for compression");
}
GzipWriter::~GzipWriter() { ::deflateEnd(&state_->stream); }

void GzipWriter::add(ByteSpan in, bool last, std::vector<std::byte>& out) {
  z_stream& stream = state_->stream;
  while (true) {
    const size_t before = out.size();
    out.resize(before + kGzipPiece);
    stream.next_in = zlib_bytes(in);
    stream.avail_in = zlib_count(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream.avail_out = static_cast<uInt>(kGzipPiece);
    const size_t offered = stream.avail_in;
    const bool end = last && offered == in.size();
    const int result = ::deflate(&stream, end ? Z_FINISH : Z_NO_FLUSH);
    in = in.subspan(offered - stream.avail_in);
    out.resize(out.size() - stream.avail_out);
    if (result == Z_STREAM_END || (!end && in.empty() && stream.avail_out != 0)) return;
    if (result != Z_OK && result != Z_BUF_ERROR)
      throw Error(ErrorKind::kIo, "the compressor failed");
  }
}

struct GzipReader::State {
  z_stream stream{};
  bool ended = false;
};

GzipReader::GzipReader() : state_(std::make_unique<State>()) {
  if (::inflateInit2(&state_->stream, kGzipWindow) != Z_OK)
    throw Error(ErrorKind::kNoMemory, "no memory for decompression");
}
GzipReader::~GzipReader() { ::inflateEnd(&state_->stream); }
bool GzipReader::ended() const { return state_->ended; }

size_t GzipReader::read(ByteSpan& in, MutableByteSpan out) {
  z_stream& stream = state_->stream;
  size_t done = 0;
  while (!state_->ended && done < out.size() && !in.empty()) {
    stream.next_in = zlib_bytes(in);
    stream.avail_in = zlib_count(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + done);
    stream.avail_out = zlib_count(out.size() - done);
    const size_t offered = stream.avail_in;
    const size_t room = stream.avail_out;
    const int result = ::inflate(&stream, Z_NO_FLUSH);
    in = in.subspan(offered - stream.avail_in);
    done += room - stream.avail_out;
    if (result == Z_STREAM_END)
      state_->ended = true;
    else if (result != Z_OK)
      throw Error(ErrorKind::kCorrupt, "the gzip data is damaged");
  }
  return done;
}

}  // namespace cairn
