#include "block/format_node.h"

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/debug.h"
#include "block/driver.h"
#include "crypto/cipher.h"

namespace cairn {
namespace {

// Up to this much, payload and copied-up neighbours go to the host in one write.
constexpr uint64_t kMergeBytes = 256 << 10;
constexpr uint64_t kBounceBytes = 1 << 20;
// Encrypted at a time: what fits into the processor's cache next to its source.
constexpr uint64_t kCipherBytes = 256 << 10;
// Above this, decrypting is left to the pool; below, it takes less than a millisecond.
constexpr uint64_t kInlineCipherBytes = 1 << 20;

}  // namespace

FormatNode::FormatNode(Context& context, const Driver& driver, NodePtr file)
    : Node(context, driver), file_(file.get()) {
  set_splits_zeroes();
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<std::vector<std::byte>> FormatNode::first_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  co_await file_->read(0, bytes);
  co_return bytes;
}

void FormatNode::set_unit(uint64_t bytes) {
  Limits& limits = mutable_limits();
  limits.cluster_bytes = limits.zero_alignment = limits.discard_alignment = bytes;
}

Task<void> FormatNode::zero_unit_after(uint64_t length) {
  const uint64_t rest = align_up(length, limits().cluster_bytes) - length;
  if (rest == 0) co_return;
  const Mapping there = co_await map(length, rest);
  if (there.kind == Mapping::Kind::kChild)
    co_await there.host->write_zeroes(there.host_offset, rest);
}

Task<void> FormatNode::lock_clusters(RangeLock::Guard& guard, uint64_t offset, uint64_t length,
                                     bool exclusive) {
  if (exclusive && !known_whole_.load(std::memory_order_acquire)) [[unlikely]]
    co_await refuse_cut_once();
  const uint64_t cluster = std::max<uint64_t>(limits().cluster_bytes, 1);
  const uint64_t begin = align_down(offset, cluster);
  const uint64_t end = align_up(offset + length, cluster);
  co_await ranges_.acquire(guard, begin, end - begin, exclusive);
}

// --- reading ---

Task<void> FormatNode::do_read(uint64_t offset, MutableByteSpan out) {
  // Nothing is ever unmapped under a reader of a read-only image: no lock.
  if (read_only()) return read_guest(offset, out);
  return [](FormatNode& self, uint64_t at, MutableByteSpan to) -> Task<void> {
    RangeLock::Guard guard;
    co_await self.lock_clusters(guard, at, to.size(), false);
    co_await self.read_guest(at, to);
  }(*this, offset, out);
}

Task<void> FormatNode::read_guest(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const Mapping mapping = co_await map(offset, out.size());
    size_t part = std::min<uint64_t>(mapping.length, out.size());
    if (mapping.kind == Mapping::Kind::kChild &&
        reaches_past_end(*mapping.host, mapping.host_offset, part)) [[unlikely]]
      part = co_await stored_bytes(mapping.host, mapping.host_offset, offset, part);
    const MutableByteSpan piece = out.first(part);
    switch (mapping.kind) {
      case Mapping::Kind::kChild:
        if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kReadAio);
        co_await mapping.host->read(mapping.host_offset, piece);
        if (cipher_) co_await decrypt(mapping.host_offset, offset, piece);
        break;
      case Mapping::Kind::kZero:
        std::memset(piece.data(), 0, part);
        break;
      case Mapping::Kind::kBelow:
        if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kReadBackingAio);
        co_await read_below(offset, piece);
        break;
      case Mapping::Kind::kEncoded:
        if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kReadCompressed);
        co_await read_encoded(mapping, offset, piece);
        break;
    }
    offset += part;
    out = out.subspan(part);
  }
}

Task<void> FormatNode::read_below(uint64_t offset, MutableByteSpan out) {
  Node* below = backing();
  const uint64_t end = below != nullptr ? below->length() : 0;
  const size_t part = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  if (part != 0) co_await below->read(offset, out.first(part));
  std::memset(out.data() + part, 0, out.size() - part);
}

Task<Extent> FormatNode::do_extent(uint64_t offset, uint64_t max) {
  const Mapping mapping = co_await map(offset, max);
  Extent extent;
  extent.length = mapping.length;
  extent.compressed = mapping.compressed;
  extent.host = mapping.host;
  extent.host_offset = mapping.host_offset;
  switch (mapping.kind) {
    case Mapping::Kind::kChild:
      extent.data = true;
      extent.allocated = true;
      if (reaches_past_end(*mapping.host, mapping.host_offset, mapping.length))
        extent.length =
            co_await stored_bytes(mapping.host, mapping.host_offset, offset, mapping.length);
      break;
    case Mapping::Kind::kZero:
      extent.zero = true;
      extent.allocated = true;
      break;
    case Mapping::Kind::kBelow:
      break;
    case Mapping::Kind::kEncoded:
      extent.data = true;
      extent.allocated = true;
      extent.host = nullptr;
      break;
  }
  if (cipher_) {
    // What is stored is not what the guest reads, holes included.
    extent.host = nullptr;
    co_return extent;
  }
  if (extent.host != nullptr &&
      (extent.host->driver().kind() != DriverKind::kProtocol || data_may_be_sparse())) {
    // The bytes are deeper: in what the child is made of.
    const Extent deeper = co_await extent.host->layer_extent_at(extent.host_offset, extent.length);
    extent.length = std::min(extent.length, deeper.length);
    if (deeper.host != nullptr || extent.host->driver().kind() != DriverKind::kProtocol) {
      extent.host = deeper.host;
      extent.host_offset = deeper.host_offset;
    }
    if (mapping.kind == Mapping::Kind::kChild && deeper.zero) extent.zero = true;
  }
  co_return extent;
}

// --- writing ---

Task<void> FormatNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  while (!in.empty()) {
    uint64_t done = 0;
    {
      RangeLock::Guard guard;
      co_await lock_clusters(guard, offset, in.size(), false);
      const Grant place = co_await grant(offset, in.size(), false);
      if (place.length != 0) {
        co_await write_in_place(place, offset, in.first(place.length));
      }
      done = place.length;
    }
    if (done == 0) {
      RangeLock::Guard guard;
      co_await lock_clusters(guard, offset, in.size(), true);
      co_await write_locked(offset, in);
      co_return;
    }
    offset += done;
    in = in.subspan(done);
  }
}

Task<void> FormatNode::write_locked(uint64_t offset, ByteSpan in) {
  while (!in.empty()) {
    const Grant place = co_await grant(offset, in.size(), true);
    const ByteSpan piece = in.first(place.length);
    if (place.in_place) {
      co_await write_in_place(place, offset, piece);
    } else {
      std::exception_ptr error;
      try {
        co_await write_granted(place, piece);
      } catch (...) {
        error = std::current_exception();
      }
      if (error) {
        co_await abandon(place);
        std::rethrow_exception(error);
      }
      co_await fill_host(place);
      co_await publish(place);
    }
    offset += place.length;
    in = in.subspan(place.length);
  }
}

// To write where the file was cut off would make it longer, and what is missing around it zeroes.
Task<void> FormatNode::write_in_place(Grant place, uint64_t offset, ByteSpan in) {
  if (reaches_past_end(*place.host, place.host_offset, in.size())) [[unlikely]] {
    for (uint64_t at = 0; at < in.size();) {
      at += co_await stored_bytes(place.host, place.host_offset + at, offset + at, in.size() - at);
    }
  }
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kWriteAio);
  co_await write_payload(*place.host, place.host_offset, offset, in);
}

Task<void> FormatNode::write_granted(const Grant& place, ByteSpan in) {
  DebugPort* const port = debug_below();
  const uint64_t end = place.offset + place.length;
  uint64_t head = place.offset - place.copy_begin;
  uint64_t tail = place.copy_end - end;
  // Stored zeroes are zeroes of the guest only where nothing is encrypted.
  const bool host_is_zero = place.host_is_zero && !cipher_;
  // What is past the end of the disk is nobody's content: it only has to be zero.
  if (head != 0 && host_is_zero) {
    const bool zero = co_await guest_reads_zero(place.copy_begin, place.offset);
    if (zero) head = 0;
  }
  if (tail != 0 && host_is_zero) {
    const bool zero = co_await guest_reads_zero(end, place.copy_end);
    if (zero) tail = 0;
  }
  if (port != nullptr) co_await port->event(DebugEvent::kWriteAio);
  if (head == 0 && tail == 0) {
    co_await write_payload(*place.host, place.host_offset, place.offset, in);
    co_return;
  }
  const auto fill = [&](uint64_t from, MutableByteSpan out) -> Task<void> {
    const uint64_t disk = length();
    const size_t inside = from < disk ? std::min<uint64_t>(out.size(), disk - from) : 0;
    if (inside != 0) co_await read_guest(from, out.first(inside));
    std::memset(out.data() + inside, 0, out.size() - inside);
  };
  if (port != nullptr) {
    co_await port->event(DebugEvent::kCowRead);
    co_await port->event(DebugEvent::kCowWrite);
  }
  if (head + in.size() + tail <= kMergeBytes) {
    AlignedBuffer whole(head + in.size() + tail);
    if (head != 0) co_await fill(place.offset - head, whole.span().first(head));
    std::memcpy(whole.data() + head, in.data(), in.size());
    if (tail != 0) co_await fill(end, whole.span().subspan(head + in.size()));
    co_await write_payload(*place.host, place.host_offset - head, place.offset - head,
                           std::as_const(whole).span());
    co_return;
  }
  AlignedBuffer part(std::min(kBounceBytes, std::max(head, tail)));
  for (uint64_t at = 0; at < head;) {
    const MutableByteSpan piece = part.span().first(std::min<uint64_t>(part.size(), head - at));
    co_await fill(place.offset - head + at, piece);
    co_await write_payload(*place.host, place.host_offset - head + at, place.offset - head + at,
                           piece);
    at += piece.size();
  }
  co_await write_payload(*place.host, place.host_offset, place.offset, in);
  for (uint64_t at = 0; at < tail;) {
    const MutableByteSpan piece = part.span().first(std::min<uint64_t>(part.size(), tail - at));
    co_await fill(end + at, piece);
    co_await write_payload(*place.host, place.host_offset + place.length + at, end + at, piece);
    at += piece.size();
  }
}

// --- encryption ---

void FormatNode::set_payload_cipher(std::shared_ptr<const SectorCipher> cipher, CipherOffset by) {
  cipher_ = std::move(cipher);
  cipher_offset_ = by;
  Limits& limits = mutable_limits();
  limits.request_alignment = std::max(limits.request_alignment, cipher_->sector_bytes());
}

Task<void> FormatNode::write_payload(Node& host, uint64_t host_offset, uint64_t offset,
                                     ByteSpan in) {
  if (!cipher_) return host.write(host_offset, in);
  return write_encrypted(host, host_offset, offset, in);
}

Task<void> FormatNode::write_encrypted(Node& host, uint64_t host_offset, uint64_t offset,
                                       ByteSpan in) {
  AlignedBuffer bounce(std::min<uint64_t>(kCipherBytes, in.size()));
  const uint64_t iv_offset = cipher_offset_ == CipherOffset::kGuest ? offset : host_offset;
  for (uint64_t at = 0; at < in.size();) {
    const ByteSpan plain = in.subspan(at, std::min<uint64_t>(bounce.size(), in.size() - at));
    const MutableByteSpan encrypted = bounce.span().first(plain.size());
    cipher_->encrypt(iv_offset + at, plain, encrypted);
    co_await host.write(host_offset + at, encrypted);
    at += plain.size();
  }
}

Task<void> FormatNode::decrypt(uint64_t host_offset, uint64_t offset, MutableByteSpan bytes) {
  const uint64_t iv_offset = cipher_offset_ == CipherOffset::kGuest ? offset : host_offset;
  if (bytes.size() > kInlineCipherBytes)
    co_await run_blocking([&] { cipher_->decrypt(iv_offset, bytes, bytes); });
  else
    cipher_->decrypt(iv_offset, bytes, bytes);
}

// --- copying by the kernel ---

Task<bool> FormatNode::copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                                  uint64_t length) {
  if (cipher_) co_return false;
  RangeLock::Guard guard;
  co_await lock_clusters(guard, offset, length, true);
  uint64_t done = 0;
  while (done < length) {
    const Grant place = co_await grant(offset + done, length - done, true);
    bool copied = false;
    std::exception_ptr error;
    try {
      copied = co_await copy_granted(place, source, source_offset + done);
      // Once something was written the rest is written as well, one way or the other.
      if (!copied && done != 0) {
        AlignedBuffer buffer(place.length);
        co_await source.read(source_offset + done, buffer.span());
        co_await write_granted(place, std::as_const(buffer).span());
        copied = true;
      }
    } catch (...) {
      error = std::current_exception();
    }
    if (!copied && !place.in_place) co_await abandon(place);
    if (error) std::rethrow_exception(error);
    if (!copied) co_return false;
    if (!place.in_place) {
      co_await fill_host(place);
      co_await publish(place);
    }
    done += place.length;
  }
  co_return true;
}

// Where neighbours would have to be copied up as well the caller does better to read and write.
Task<bool> FormatNode::copy_granted(const Grant& place, Node& source, uint64_t source_offset) {
  const uint64_t end = place.offset + place.length;
  bool bare = place.copy_begin == place.offset && place.copy_end == end;
  if (!bare && place.host_is_zero) {
    bare = co_await guest_reads_zero(place.copy_begin, place.offset);
    if (bare) bare = co_await guest_reads_zero(end, place.copy_end);
  }
  if (!bare) co_return false;
  const bool copied =
      co_await place.host->copy_range_from(source, source_offset, place.host_offset, place.length);
  co_return copied;
}

Task<bool> FormatNode::guest_reads_zero(uint64_t begin, uint64_t end) {
  end = std::min(end, length());
  while (begin < end) {
    const Mapping mapping = co_await map(begin, end - begin);
    uint64_t part = std::min(mapping.length, end - begin);
    if (mapping.kind == Mapping::Kind::kBelow) {
      Node* below = backing();
      if (below != nullptr && begin < below->length()) {
        const Extent extent =
            co_await below->extent_at(begin, std::min(part, below->length() - begin));
        if (!extent.zero) co_return false;
        part = extent.length;
      }
    } else if (mapping.kind != Mapping::Kind::kZero) {
      co_return false;
    }
    begin += part;
  }
  co_return true;
}

// --- zeroes and discard ---

Task<void> FormatNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  const uint64_t unit = limits().zero_alignment;
  const uint64_t end = offset + length;
  const bool to_end = end == this->length();
  const uint64_t middle = std::min(align_up(offset, unit), end);
  const uint64_t middle_end = std::max(middle, to_end ? end : align_down(end, unit));
  if (flags.no_fallback && !has_zero_marks()) throw Error::system(ENOTSUP);
  RangeLock::Guard guard;
  co_await lock_clusters(guard, offset, length, true);
  if (offset < middle) co_await zero_part(offset, middle - offset, flags);
  for (uint64_t at = middle; at < middle_end;) {
    const uint64_t done = co_await zero_mapped(at, middle_end - at, flags.may_unmap);
    if (done == 0) {
      if (flags.no_fallback) throw Error::system(ENOTSUP);
      co_await write_zeroes_locked(at, middle_end - at);
      break;
    }
    at += done;
  }
  if (middle_end < end) co_await zero_part(middle_end, end - middle_end, flags);
}

// Less than a unit: by metadata when the rest of the unit reads as zeroes and has no data of its
// own, else written.
Task<void> FormatNode::zero_part(uint64_t offset, uint64_t length, WriteFlags flags) {
  const uint64_t unit = limits().zero_alignment;
  const uint64_t begin = align_down(offset, unit);
  const uint64_t end = std::min(begin + unit, this->length());
  const bool before = co_await guest_reads_zero(begin, offset);
  bool behind = false;
  if (before) behind = co_await guest_reads_zero(offset + length, end);
  if (behind) {
    const uint64_t done = co_await zero_mapped(begin, end - begin, flags.may_unmap);
    if (done == end - begin) co_return;
  }
  if (flags.no_fallback) throw Error::system(ENOTSUP);
  co_await write_zeroes_locked(offset, length);
}

Task<void> FormatNode::write_zeroes_locked(uint64_t offset, uint64_t length) {
  AlignedBuffer zeroes(std::min(length, kBounceBytes));
  std::memset(zeroes.data(), 0, zeroes.size());
  while (length != 0) {
    const uint64_t part = std::min<uint64_t>(length, zeroes.size());
    co_await write_locked(offset, std::as_const(zeroes).span().first(part));
    offset += part;
    length -= part;
  }
}

Task<void> FormatNode::do_discard(uint64_t offset, uint64_t length) {
  RangeLock::Guard guard;
  co_await lock_clusters(guard, offset, length, true);
  co_await discard_mapped(offset, length);
}

// --- compressed, flush ---

Task<void> FormatNode::write_encoded_cluster(uint64_t offset, ByteSpan encoded, ByteSpan plain) {
  note_written(offset + plain.size());
  RangeLock::Guard guard;
  co_await lock_clusters(guard, offset, plain.size(), true);
  std::exception_ptr error;
  try {
    if (encoded.empty()) {
      co_await write_locked(offset, plain);
    } else {
      if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kWriteCompressed);
      co_await store_encoded(offset, encoded);
    }
  } catch (...) {
    error = std::current_exception();
  }
  mark_dirty(offset, plain.size());
  if (error) std::rethrow_exception(error);
}

Task<void> FormatNode::do_flush() { co_await flush_mapped(); }

// --- defaults: a format that only reads ---

Task<void> FormatNode::read_encoded(const Mapping&, uint64_t, MutableByteSpan) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<Grant> FormatNode::grant(uint64_t, uint64_t, bool) {
  throw Error::system(ENOTSUP);
  co_return Grant{};
}
Task<void> FormatNode::publish(Grant) { co_return; }
Task<void> FormatNode::abandon(Grant) { co_return; }
Task<bool> FormatNode::unmap_unit(uint64_t) { co_return false; }
Task<uint64_t> FormatNode::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  const Mapping there = co_await map(offset, length);
  if (there.kind == Mapping::Kind::kZero) co_return there.length;
  uint64_t done = 0;
  while (may_unmap && done < there.length) {
    if (!co_await unmap_unit(offset + done)) break;
    done += limits().cluster_bytes;
  }
  co_return done;
}
Task<void> FormatNode::discard_mapped(uint64_t offset, uint64_t length) {
  for (uint64_t at = offset; at < offset + length; at += limits().cluster_bytes)
    if (!co_await unmap_unit(at)) co_return;
}
Task<void> FormatNode::store_encoded(uint64_t, ByteSpan) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<void> FormatNode::flush_mapped() { co_await Node::do_flush(); }

}  // namespace cairn
