#include "job/rebase.h"

#include <algorithm>
#include <cstring>

#include "async/runtime.h"
#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"

namespace cairn {
namespace {
constexpr uint64_t kUnitBytes = 1 << 20;
constexpr unsigned kLeastCopiers = 4;
}  // namespace

Task<Rebase::Look> Rebase::look(Layer& layer, uint64_t offset, uint64_t max) {
  if (layer.node == nullptr || offset >= layer.node->length()) co_return Look{.length = max};
  if (offset < layer.begin || offset >= layer.begin + layer.known.length) {
    const Extent extent = co_await layer.node->extent_at(offset, layer.node->length() - offset);
    layer.begin = offset;
    layer.known = {.zero = extent.zero,
                   .host = extent.compressed ? nullptr : extent.host,
                   .host_offset = extent.host_offset,
                   .length = extent.length};
  }
  Look result = layer.known;
  result.host_offset += offset - layer.begin;
  result.length = std::min(max, layer.begin + layer.known.length - offset);
  co_return result;
}

Task<void> Rebase::read(Node* below, uint64_t offset, MutableByteSpan out) {
  const uint64_t length = below == nullptr ? 0 : below->length();
  const size_t inside = offset < length ? std::min<uint64_t>(out.size(), length - offset) : 0;
  if (inside != 0) co_await below->read(offset, out.first(inside));
  std::memset(out.data() + inside, 0, out.size() - inside);
}

Task<void> Rebase::run() {
  total_ = overlay_->length();
  before_.node = old_.get();
  after_.node = new_.get();
  Runtime& runtime = overlay_->context().runtime();
  const unsigned workers = runtime.worker_count();
  TaskGroup group;
  for (unsigned i = 0; i < std::max(kLeastCopiers, workers); ++i)
    group.spawn_on(runtime.worker(i % workers), settle_pieces());
  co_await group.join();
}

// Takes the next piece, settles it, and so on.
Task<void> Rebase::settle_pieces() {
  co_await yield_now();
  AlignedBuffer before(kUnitBytes);
  AlignedBuffer after(kUnitBytes);
  std::exception_ptr error;
  while (!error) {
    Piece piece;
    try {
      Mutex::Guard guard = co_await next_mutex_.lock();
      cancel_.check();
      if (next_ >= total_) break;
      piece = co_await next_piece(next_);
      next_ = piece.offset + piece.length;
    } catch (...) {
      error = std::current_exception();
    }
    if (error) break;
    try {
      if (piece.differs)
        co_await settle(piece.offset, before.span().first(piece.length),
                        after.span().first(piece.new_zero ? 0 : piece.length));
    } catch (...) {
      error = std::current_exception();
    }
    if (error) break;
    Mutex::Guard guard = co_await next_mutex_.lock();
    done_ += piece.length;
    if (progress) progress(done_, total_);
  }
  if (!error) co_return;
  {
    // The others end as well.
    Mutex::Guard guard = co_await next_mutex_.lock();
    next_ = total_;
  }
  std::rethrow_exception(error);
}

// What lies from AT on: nothing to do, or bytes to compare, in whole units of the overlay.
Task<Rebase::Piece> Rebase::next_piece(uint64_t at) {
  if (at >= own_end_) {
    own_ = co_await overlay_->layer_extent_at(at, total_ - at);
    own_end_ = at + own_.length;
  }
  const uint64_t own = own_end_ - at;
  Piece piece{.offset = at, .length = own};
  if (own_.allocated) co_return piece;
  const Look a = co_await look(before_, at, own);
  const Look b = co_await look(after_, at, own);
  const uint64_t same = std::min({own, a.length, b.length});
  // Bytes that lie at the same place of the same file are the same.
  const bool same_place = a.host != nullptr && b.host != nullptr &&
                          a.host->filename() == b.host->filename() &&
                          a.host_offset == b.host_offset;
  piece.differs = !(a.zero && b.zero) && !same_place;
  // Extents below may end inside of a cluster: go on to where the overlay's units do.
  const uint64_t unit = std::max<uint64_t>(1, overlay_->limits().cluster_bytes);
  const uint64_t end = at + own;
  if (!piece.differs && same != own) {
    piece.length = std::max(align_down(at + same, unit), at) - at;
    piece.differs = piece.length == 0;
    if (piece.differs) piece.length = std::min(own, unit - at % unit);
  } else if (piece.differs) {
    piece.length = std::min(std::min(end, align_up(at + same, unit)) - at, kUnitBytes);
  }
  piece.new_zero = b.zero && piece.length <= b.length;
  co_return piece;
}

Task<void> Rebase::settle(uint64_t offset, MutableByteSpan before, MutableByteSpan after) {
  try {
    co_await read(old_.get(), offset, before);
  } catch (Error& error) {
    throw error.context("error while reading from old backing file");
  }
  try {
    if (!after.empty()) co_await read(new_.get(), offset, after);
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
    const bool same = after.empty()
                          ? is_zero(before.subspan(at, length))
                          : std::memcmp(before.data() + at, after.data() + at, length) == 0;
    if (same) {
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
