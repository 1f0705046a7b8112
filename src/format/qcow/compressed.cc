#include <fmt/core.h>

#include <cstring>

#include "base/buffer.h"
#include "block/debug.h"
#include "codec/codec.h"
#include "format/qcow/node.h"

namespace cairn {

using namespace qcow;

void QcowNode::set_compression_level(uint64_t level) {
  check_level(Compression::kDeflate, level);
  level_ = static_cast<int>(level);
}

std::vector<std::byte> QcowNode::encode_cluster(ByteSpan plain) const {
  std::vector<std::byte> padded;
  if (plain.size() < cluster()) {
    padded.resize(cluster());
    std::memcpy(padded.data(), plain.data(), plain.size());
    plain = padded;
  }
  return compress(Compression::kDeflate, plain, cluster() - 1, level_);
}

// Compressed clusters are never encrypted.
Task<void> QcowNode::read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) {
  const CompressedPlace place = CompressedPlace::decode(mapping.token, header_.cluster_bits);
  if (place.offset > file_->length() || place.length > file_->length() - place.offset)
    throw Error(
        ErrorKind::kIo,
        fmt::format(
            "the compressed cluster of byte {} of the disk extends past the end of the file",
            offset));
  AlignedBuffer encoded(place.length);
  co_await file_->read(place.offset, encoded.span());
  if (out.size() == cluster()) {
    decompress(Compression::kDeflate, std::as_const(encoded).span(), out);
    co_return;
  }
  AlignedBuffer plain(cluster());
  decompress(Compression::kDeflate, std::as_const(encoded).span(), plain.span());
  std::memcpy(out.data(), plain.data() + offset % cluster(), out.size());
}

// Always to a new place: a stream is as long as its entry says, to the byte.
Task<void> QcowNode::store_encoded(uint64_t offset, ByteSpan encoded) {
  if (encrypted()) throw Error::system(ENOTSUP);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAllocBytes);
  const Slice held = co_await writable_slice(offset);
  CompressedPlace place{.offset = co_await take(encoded.size(), kSector), .length = encoded.size()};
  const uint64_t entry = place.encode(header_.cluster_bits);
  if (entry == 0) throw Error::system(E2BIG);
  co_await file_->write(place.offset, encoded);
  l2_->write_after_file_flush();
  held.ref.store_entry((offset - held.first) / cluster(), entry);
  l2_->mark_dirty(held.ref);
}

}  // namespace cairn
