#include "codec/unpack.h"

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <new>
#include <string>

#include "base/error.h"

namespace cairn {
namespace {

constexpr uint64_t kMaxMemory = uint64_t{1} << 30;
constexpr int kMaxWindowLog = 29;  // zstd: half of it

[[noreturn]] void unusable(const std::string& what) { throw Error(ErrorKind::kCorrupt, what); }

// Members of gzip and bzip2 files follow each other; zeroes may fill up the end, as on tapes.
class MemberUnpacker : public Unpacker {
 public:
  void step(ByteSpan& in, MutableByteSpan& out, bool last) final {
    while (true) {
      if (!inside_ && !begin(in)) return;
      const size_t before = in.size() + out.size();
      if (run(in, out)) {
        inside_ = false;
        any_ = true;
        continue;
      }
      if (out.empty()) return;
      if (in.empty() || in.size() + out.size() == before) {
        if (last) unusable("the file ends in the middle of its data");
        return;
      }
    }
  }

 protected:
  // True when the member has ended.
  virtual bool run(ByteSpan& in, MutableByteSpan& out) = 0;
  virtual void reset() = 0;

 private:
  // Whether a member begins.
  bool begin(ByteSpan& in) {
    while (any_ && !in.empty() && in.front() == std::byte{0}) {
      in = in.subspan(1);
      padded_ = true;
    }
    if (in.empty()) return false;
    if (padded_) unusable("there are other bytes past the end of the data");
    if (any_) reset();
    inside_ = true;
    return true;
  }
  bool inside_ = false;
  bool any_ = false;  // one member was complete
  bool padded_ = false;
};

class GzipUnpacker : public MemberUnpacker {
 public:
  GzipUnpacker() {
    if (::inflateInit2(&stream_, 15 + 16) != Z_OK) throw std::bad_alloc();
  }
  ~GzipUnpacker() override { ::inflateEnd(&stream_); }

 protected:
  bool run(ByteSpan& in, MutableByteSpan& out) override {
    const size_t given = std::min<size_t>(in.size(), UINT_MAX);
    const size_t room = std::min<size_t>(out.size(), UINT_MAX);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream_.avail_in = static_cast<unsigned>(given);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<unsigned>(room);
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    in = in.subspan(given - stream_.avail_in);
    out = out.subspan(room - stream_.avail_out);
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      unusable("the gzip data is damaged");
    return result == Z_STREAM_END;
  }
  void reset() override { ::inflateReset(&stream_); }

 private:
  z_stream stream_ = {};
};

class Bzip2Unpacker : public MemberUnpacker {
 public:
  Bzip2Unpacker() { start(); }
  ~Bzip2Unpacker() override { BZ2_bzDecompressEnd(&stream_); }

 protected:
  bool run(ByteSpan& in, MutableByteSpan& out) override {
    const size_t given = std::min<size_t>(in.size(), UINT_MAX);
    const size_t room = std::min<size_t>(out.size(), UINT_MAX);
    stream_.next_in = reinterpret_cast<char*>(const_cast<std::byte*>(in.data()));
    stream_.avail_in = static_cast<unsigned>(given);
    stream_.next_out = reinterpret_cast<char*>(out.data());
    stream_.avail_out = static_cast<unsigned>(room);
    const int result = BZ2_bzDecompress(&stream_);
    in = in.subspan(given - stream_.avail_in);
    out = out.subspan(room - stream_.avail_out);
    if (result == BZ_MEM_ERROR) throw std::bad_alloc();
    if (result != BZ_OK && result != BZ_STREAM_END) unusable("the bzip2 data is damaged");
    return result == BZ_STREAM_END;
  }
  void reset() override {
    BZ2_bzDecompressEnd(&stream_);
    stream_ = {};
    start();
  }

 private:
  void start() {
    if (BZ2_bzDecompressInit(&stream_, 0, 0) != BZ_OK) throw std::bad_alloc();
  }
  bz_stream stream_ = {};
};

class XzUnpacker : public Unpacker {
 public:
  XzUnpacker() {
    if (::lzma_stream_decoder(&stream_, kMaxMemory, LZMA_CONCATENATED) != LZMA_OK)
      throw std::bad_alloc();
  }
  ~XzUnpacker() override { ::lzma_end(&stream_); }

  void step(ByteSpan& in, MutableByteSpan& out, bool last) override {
    if (ended_) return;
    stream_.next_in = reinterpret_cast<const uint8_t*>(in.data());
    stream_.avail_in = in.size();
    stream_.next_out = reinterpret_cast<uint8_t*>(out.data());
    stream_.avail_out = out.size();
    lzma_ret result = LZMA_OK;
    while (result == LZMA_OK && stream_.avail_out != 0 && (last || stream_.avail_in != 0))
      result = ::lzma_code(&stream_, last ? LZMA_FINISH : LZMA_RUN);
    in = in.subspan(in.size() - stream_.avail_in);
    out = out.subspan(out.size() - stream_.avail_out);
    ended_ = result == LZMA_STREAM_END;
    if (result == LZMA_OK || ended_) return;
    if (result == LZMA_MEM_ERROR) throw std::bad_alloc();
    if (result == LZMA_MEMLIMIT_ERROR) unusable("unpacking needs more than 1 GiB of memory");
    // Out of input: wanted only at the end of the file.
    if (result != LZMA_BUF_ERROR) unusable("the xz data is damaged");
    if (last && !out.empty()) unusable("the file ends in the middle of its data");
  }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ended_ = false;
};

class ZstdUnpacker : public Unpacker {
 public:
  ZstdUnpacker() : context_(::ZSTD_createDCtx()) {
    if (context_ == nullptr) throw std::bad_alloc();
    ::ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxWindowLog);
  }
  ZstdUnpacker(const ZstdUnpacker&) = delete;
  ~ZstdUnpacker() override { ::ZSTD_freeDCtx(context_); }

  void step(ByteSpan& in, MutableByteSpan& out, bool last) override {
    while (!out.empty() && !(in.empty() && between_)) {
      ZSTD_inBuffer from{in.data(), in.size(), 0};
      ZSTD_outBuffer to{out.data(), out.size(), 0};
      const size_t result = ::ZSTD_decompressStream(context_, &to, &from);
      if (::ZSTD_isError(result)) {
        const std::string why = ::ZSTD_getErrorName(result);
        unusable("the zstd data cannot be read: " + why);
      }
      in = in.subspan(from.pos);
      out = out.subspan(to.pos);
      between_ = result == 0;
      if (from.pos != 0 || to.pos != 0) continue;
      if (last && in.empty() && !between_) unusable("the file ends in the middle of its data");
      return;
    }
  }

 private:
  ZSTD_DCtx* context_;
  bool between_ = true;  // no frame has begun
};

template <size_t N>
bool begins(ByteSpan head, const unsigned char (&magic)[N]) {
  return head.size() >= N && std::memcmp(head.data(), magic, N) == 0;
}

// HEAD from its first frame of content on; pzstd puts one before it that says its size.
ByteSpan without_skippable(ByteSpan head) {
  constexpr uint32_t kLeast = 0x184d2a50;
  while (head.size() >= 8 && (load_le<uint32_t>(head, 0) & ~uint32_t{15}) == kLeast)
    head = head.subspan(std::min<size_t>(head.size(), 8 + size_t{load_le<uint32_t>(head, 4)}));
  return head;
}

}  // namespace

std::string_view to_string(Packing packing) {
  switch (packing) {
    case Packing::kGzip:
      return "gzip";
    case Packing::kXz:
      return "xz";
    case Packing::kBzip2:
      return "bzip2";
    case Packing::kZstd:
      return "zstd";
  }
  return "";
}

bool is_packed(Packing packing, ByteSpan head) {
  switch (packing) {
    case Packing::kGzip:
      // Deflate, no reserved flags.
      return begins(head, {0x1f, 0x8b, 0x08}) && head.size() > 18 &&
             (head[3] & std::byte{0xe0}) == std::byte{0};
    case Packing::kXz:
      return begins(head, {0xfd, '7', 'z', 'X', 'Z', 0});
    case Packing::kBzip2:
      return begins(head, {'B', 'Z', 'h'}) && head.size() > 10 && head[3] >= std::byte{'1'} &&
             head[3] <= std::byte{'9'} &&
             (begins(head.subspan(4), {0x31, 0x41, 0x59, 0x26, 0x53, 0x59}) ||
              begins(head.subspan(4), {0x17, 0x72, 0x45, 0x38, 0x50, 0x90}));
    case Packing::kZstd:
      return begins(without_skippable(head), {0x28, 0xb5, 0x2f, 0xfd});
  }
  return false;
}

std::optional<Packing> packing_of(ByteSpan head) {
  for (const Packing packing : kPackings)
    if (is_packed(packing, head)) return packing;
  return std::nullopt;
}

std::unique_ptr<Unpacker> make_unpacker(Packing packing) {
  switch (packing) {
    case Packing::kGzip:
      return std::make_unique<GzipUnpacker>();
    case Packing::kXz:
      return std::make_unique<XzUnpacker>();
    case Packing::kBzip2:
      return std::make_unique<Bzip2Unpacker>();
    case Packing::kZstd:
      break;
  }
  return std::make_unique<ZstdUnpacker>();
}

}  // namespace cairn
