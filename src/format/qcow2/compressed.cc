#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/debug.h"
#include "codec/codec.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

namespace {
Compression kind_of(const Header& header) {
  return header.compression_type == 1 ? Compression::kZstd : Compression::kDeflate;
}
}  // namespace

void Qcow2Node::set_compression_level(uint64_t level) {
  check_level(kind_of(header_), level);
  compression_level_ = static_cast<int>(level);
}

std::vector<std::byte> Qcow2Node::encode_cluster(ByteSpan plain) const {
  if (plain.size() == cluster())
    return compress(kind_of(header_), plain, cluster() - 1, compression_level_);
  std::vector<std::byte> padded(cluster());
  std::memcpy(padded.data(), plain.data(), std::min(plain.size(), padded.size()));
  return compress(kind_of(header_), padded, cluster() - 1, compression_level_);
}

Task<void> Qcow2Node::read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) {
  const CompressedPlace place = CompressedPlace::decode(mapping.token, header_.cluster_bits);
  AlignedBuffer encoded(std::min<uint64_t>(place.length, 2 * cluster()));
  co_await file_->read(place.offset, encoded.span());
  if (out.size() == cluster()) {
    decompress(kind_of(header_), std::as_const(encoded).span(), out);
    co_return;
  }
  AlignedBuffer plain(cluster());
  decompress(kind_of(header_), std::as_const(encoded).span(), plain.span());
  std::memcpy(out.data(), plain.data() + offset % cluster(), out.size());
}

// Packs clusters one after the other; every host cluster counts those that touch it.
Task<void> Qcow2Node::store_encoded(uint64_t offset, ByteSpan encoded) {
  if (external_) throw Error::system(ENOTSUP);
  const Slice held = co_await writable_slice(offset);
  const size_t index = slice_index(offset);
  const Entry old = load_entry(held.ref, index);
  check_entry(old, offset);
  if ((old.word & (kCompressed | kOffsetMask)) != 0) throw Error::system(EIO);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAllocBytes);
  uint64_t place = 0;
  {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    const uint64_t most =
        header_.refcount_order == 6 ? UINT64_MAX : (uint64_t{1} << header_.refcount_bits()) - 1;
    const uint64_t current = compressed_cursor_ / cluster();
    bool room = compressed_cursor_ % cluster() != 0;
    if (room) {
      const uint64_t used = co_await refcount(current);
      room = used != 0 && used < most;
    }
    const uint64_t left = room ? cluster() - compressed_cursor_ % cluster() : 0;
    if (encoded.size() <= left) {
      place = compressed_cursor_;
      co_await change_refcount(current, 1, +1);
    } else {
      const Run run = co_await allocate_locked(1, 1, kClusterAtZero);
      const uint64_t next = run.first * cluster();
      place = next;
      if (room && next == (current + 1) * cluster()) {
        place = compressed_cursor_;
        co_await change_refcount(current, 1, +1);
      }
      virgin_ = std::max(virgin_, next + cluster());
    }
    compressed_cursor_ = place + encoded.size();
  }
  co_await file_->write(place, encoded);
  wrote_compressed_ = true;
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2UpdateCompressed);
  store_entry(held.ref, index,
              {CompressedPlace::encode(place, encoded.size(), header_.cluster_bits), 0});
  l2_->mark_dirty(held.ref);
}

}  // namespace cairn
