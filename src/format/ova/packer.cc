#include "format/ova/packer.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "base/arith.h"
#include "crypto/digest.h"
#include "format/ova/tar.h"

namespace cairn::ova {
namespace {
constexpr uint64_t kPieceBytes = 1 << 20;
}  // namespace

Task<void> Packer::begin_member(std::string name, uint64_t bytes) {
  TarHeader header;
  header.name = std::move(name);
  header.bytes = bytes;
  std::vector<std::byte> block(kTarBlock);
  header.encode(block, static_cast<uint64_t>(std::time(nullptr)));
  co_await append(block, block.size());
}

// The first BYTES of PIECE, filled up to whole blocks.
Task<void> Packer::append(MutableByteSpan piece, uint64_t bytes) {
  const uint64_t whole = align_up(bytes, kTarBlock);
  std::memset(piece.data() + bytes, 0, whole - bytes);
  co_await file_.write(at_, piece.first(whole));
  at_ += whole;
}

Task<void> Packer::add_text(std::string name, std::string text) {
  Digest digest("sha256");
  digest.add(bytes_of(text));
  co_await begin_member(name, text.size());
  std::vector<std::byte> piece(align_up(text.size(), kTarBlock));
  store_text(piece, 0, text);
  co_await append(piece, text.size());
  manifest_.push_back({digest.algorithm(), std::move(name), digest.finish()});
}

Task<void> Packer::add_file(std::string name, Node& content) {
  Digest digest("sha256");
  const uint64_t bytes = content.length();
  co_await begin_member(name, bytes);
  std::vector<std::byte> piece(kPieceBytes);
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t part = std::min(kPieceBytes, bytes - done);
    co_await content.read(done, MutableByteSpan(piece).first(part));
    digest.add(ByteSpan(piece).first(part));
    co_await append(piece, part);
    done += part;
  }
  manifest_.push_back({digest.algorithm(), std::move(name), digest.finish()});
}

Task<void> Packer::finish(std::string name) {
  const std::string text = compose(manifest_);
  co_await add_text(std::move(name), text);
  std::vector<std::byte> end(2 * kTarBlock);
  co_await append(end, end.size());
  co_await file_.flush();
}

}  // namespace cairn::ova
