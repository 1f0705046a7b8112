#include "job/commit.h"

#include <algorithm>

#include "async/runtime.h"
#include "base/buffer.h"

namespace cairn {
namespace {
constexpr uint64_t kUnitBytes = 1 << 20;
}

// Which layer above the base decides the bytes from OFFSET on. Behind the end of a layer its own
// zeroes hide what is below.
Task<Commit::Piece> Commit::look(uint64_t offset, uint64_t max) {
  Piece piece{.length = max};
  for (const NodePtr& layer : layers_) {
    if (offset >= layer->length()) {
      piece.layer = layer.get();
      piece.zero = true;
      co_return piece;
    }
    const Extent extent =
        co_await layer->layer_extent_at(offset, std::min(piece.length, layer->length() - offset));
    piece.length = std::min(piece.length, extent.length);
    if (!extent.allocated) continue;
    piece.layer = layer.get();
    piece.zero = extent.zero;
    co_return piece;
  }
  co_return piece;
}

Task<void> Commit::run() {
  const uint64_t total = layers_.front()->length();
  if (base_->length() < total) co_await base_->resize({.length = total});
  AlignedBuffer buffer(kUnitBytes);
  const auto begin = std::chrono::steady_clock::now();
  uint64_t written = 0;
  for (uint64_t at = 0; at < total;) {
    cancel_.check();
    const Piece piece = co_await look(at, total - at);
    uint64_t part = piece.length;
    if (piece.layer != nullptr && piece.zero) {
      co_await base_->write_zeroes(at, part, {.may_unmap = true});
    } else if (piece.layer != nullptr) {
      part = std::min(part, kUnitBytes);
      co_await piece.layer->read(at, buffer.span().first(part));
      co_await base_->write(at, std::as_const(buffer).span().first(part));
      written += part;
    }
    at += part;
    if (progress) progress(at, total);
    if (rate_ == 0) continue;
    const std::chrono::duration<double> due(static_cast<double>(written) /
                                            static_cast<double>(rate_));
    const auto now = std::chrono::steady_clock::now() - begin;
    if (due > now)
      co_await sleep_for(std::chrono::duration_cast<std::chrono::nanoseconds>(due - now));
  }
  co_await base_->flush();
}

}  // namespace cairn
