#include "job/rebase.h"

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"

namespace cairn {
namespace {
constexpr uint64_t kUnitBytes = 2 << 20;
}

Task<Rebase::Look> Rebase::look(Node* below, uint64_t offset, uint64_t max) {
  Look result{.length = max};
  if (below == nullptr || offset >= below->length()) co_return result;
  const Extent extent = co_await below->extent_at(offset, std::min(max, below->length() - offset));
  result.zero = extent.zero;
  result.length = extent.length;
  if (!extent.compressed) result.host = extent.host;
  result.host_offset = extent.host_offset;
  co_return result;
}

Task<void> Rebase::read(Node* below, uint64_t offset, MutableByteSpan out) {
  const uint64_t length = below == nullptr ? 0 : below->length();
  const size_t inside = offset < length ? std::min<uint64_t>(out.size(), length - offset) : 0;
  if (inside != 0) co_await below->read(offset, out.first(inside));
  std::memset(out.data() + inside, 0, out.size() - inside);
}

Task<void> Rebase::run() {
  const uint64_t total = overlay_->length();
  AlignedBuffer before(kUnitBytes);
  AlignedBuffer after(kUnitBytes);
  for (uint64_t at = 0; at < total;) {
    cancel_.check();
    const Extent own = co_await overlay_->layer_extent_at(at, total - at);
    uint64_t part = own.length;
    if (!own.allocated) {
      const Look a = co_await look(old_.get(), at, part);
      const Look b = co_await look(new_.get(), at, part);
      part = std::min({part, a.length, b.length});
      // Bytes that lie at the same place of the same file are the same.
      const bool same_place = a.host != nullptr && b.host != nullptr &&
                              a.host->filename() == b.host->filename() &&
                              a.host_offset == b.host_offset;
      if (!(a.zero && b.zero) && !same_place) {
        // Extents below may end inside of a cluster: go on to where the overlay's units do.
        const uint64_t unit = std::max<uint64_t>(1, overlay_->limits().cluster_bytes);
        const uint64_t end = std::min(at + own.length, align_up(at + part, unit));
        part = std::min(end - at, kUnitBytes);
        co_await settle(at, before.span().first(part), after.span().first(part));
      } else if (at + part != at + own.length) {
        part =
            std::max(align_down(at + part, std::max<uint64_t>(1, overlay_->limits().cluster_bytes)),
                     at) -
            at;
        if (part == 0) {
          part = std::min(own.length,
                          overlay_->limits().cluster_bytes - at % overlay_->limits().cluster_bytes);
          co_await settle(at, before.span().first(part), after.span().first(part));
        }
      }
    }
    at += part;
    if (progress) progress(at, total);
  }
}

Task<void> Rebase::settle(uint64_t offset, MutableByteSpan before, MutableByteSpan after) {
  try {
    co_await read(old_.get(), offset, before);
  } catch (Error& error) {
    throw error.context("error while reading from old backing file");
  }
  try {
    co_await read(new_.get(), offset, after);
  } catch (Error& error) {
    throw error.context("error while reading from new backing file");
  }
  const uint64_t cluster = std::max<uint64_t>(1, overlay_->limits().cluster_bytes);
  // Compressed clusters are stored whole; else the units in which the overlay allocates.
  const uint64_t unit =
      compress_ ? cluster : std::max<uint64_t>(1, overlay_->limits().zero_alignment);
  uint64_t begin = 0;  // of what differs and is not yet kept
  for (uint64_t at = 0; at < before.size();) {
    const uint64_t length = std::min<uint64_t>(before.size() - at, unit - (offset + at) % unit);
    if (std::memcmp(before.data() + at, after.data() + at, length) == 0) {
      co_await keep(offset + begin, before.subspan(begin, at - begin));
      begin = at + length;
    }
    at += length;
  }
  co_await keep(offset + begin, before.subspan(begin));
}

Task<void> Rebase::keep(uint64_t offset, ByteSpan bytes) {
  if (bytes.empty()) co_return;
  const uint64_t cluster = overlay_->limits().cluster_bytes;
  const bool whole =
      compress_ && is_aligned(offset, cluster) &&
      (is_aligned(bytes.size(), cluster) || offset + bytes.size() == overlay_->length());
  try {
    if (is_zero(bytes))
      co_await overlay_->write_zeroes(offset, bytes.size());
    else if (whole)
      co_await overlay_->write_compressed(offset, bytes);
    else
      co_await overlay_->write(offset, bytes);
  } catch (Error& error) {
    throw error.context("Error while writing to COW image");
  }
}

}  // namespace cairn
