#include "job/commit.h"

#include <algorithm>

#include "async/runtime.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "job/stored.h"

namespace cairn {
namespace {
constexpr uint64_t kCommitUnitBytes = 1 << 20;
// What one copier goes through before it asks for more: to ask costs more than a small piece.
constexpr uint64_t kCommitRegionBytes = 4 << 20;
constexpr unsigned kCommitLeastCopiers = 8;
}  // namespace

// Which layer above the base decides the bytes from OFFSET on. Past the end of a layer its own
// zeroes hide what is below.
Task<Commit::Piece> Commit::look(std::vector<Known>& asked, uint64_t offset, uint64_t max) const {
  Piece piece{.length = max};
  for (size_t i = 0; i < layers_.size(); ++i) {
    Node& layer = *layers_[i];
    Known& known = asked[i];
    if (offset >= layer.length()) {
      piece.layer = &layer;
      piece.zero = true;
      co_return piece;
    }
    if (offset >= known.end) {
      known.extent = co_await layer.layer_extent_at(offset, layer.length() - offset);
      known.end = offset + known.extent.length;
    }
    piece.length = std::min(piece.length, known.end - offset);
    if (!known.extent.allocated) continue;
    piece.layer = &layer;
    piece.zero = known.extent.zero;
    co_return piece;
  }
  co_return piece;
}

Task<void> Commit::run() {
  total_ = layers_.front()->length();
  known_.resize(layers_.size());
  std::vector<StoredPart> parts;
  for (const NodePtr& layer : layers_) parts.push_back({.node = layer.get()});
  parts.push_back({.node = base_.get()});
  co_await check_stored(std::move(parts), cancel_);
  if (base_->length() < total_) co_await base_->resize({.length = total_});
  Runtime& runtime = base_->context().runtime();
  const unsigned workers = runtime.worker_count();
  TaskGroup group;
  for (unsigned i = 0; i < std::max(kCommitLeastCopiers, workers); ++i)
    group.spawn_on(runtime.worker(i % workers), copy_regions(group));
  co_await group.join();
  co_await base_->flush();
}

// The next region that some layer decides at its begin; an empty one in the end.
Task<Commit::Region> Commit::claim(const TaskGroup& group) {
  Mutex::Guard guard = co_await next_mutex_.lock();
  while (next_ < total_ && !group.failed()) {
    cancel_.check();
    const uint64_t at = next_;
    const Piece piece = co_await look(known_, at, total_ - at);
    next_ = at + piece.length;
    if (piece.layer != nullptr) {
      // A long stretch of zeroes is one request.
      if (!piece.zero)
        next_ = std::min(total_, align_down(at, kCommitRegionBytes) + kCommitRegionBytes);
      co_return Region{at, next_};
    }
    {
      const std::lock_guard lock(done_mutex_);
      done_ += piece.length;
      if (progress) progress(done_, total_);
    }
  }
  co_return Region{};
}

// Takes the next region, copies its pieces, and so on. Where they land does not depend on their
// order.
Task<void> Commit::copy_regions(const TaskGroup& group) {
  co_await yield_now();
  AlignedBuffer buffer(kCommitUnitBytes);
  std::vector<Known> known(layers_.size());
  while (true) {
    const Region region = co_await claim(group);
    if (region.begin == region.end) break;
    for (uint64_t at = region.begin; at < region.end;) {
      cancel_.check();
      Piece piece = co_await look(known, at, region.end - at);
      if (!piece.zero) piece.length = std::min(piece.length, kCommitUnitBytes);
      co_await copy(piece, at, buffer.span());
      at += piece.length;
      settle(piece);
    }
  }
}

Task<void> Commit::copy(const Piece& piece, uint64_t at, MutableByteSpan buffer) {
  if (piece.layer == nullptr) co_return;
  if (piece.zero) {
    co_await base_->write_zeroes(at, piece.length, {.may_unmap = true});
    co_return;
  }
  co_await writes_.admit(piece.length, &cancel_);
  const MutableByteSpan part = buffer.first(piece.length);
  co_await piece.layer->read(at, part);
  co_await base_->write(at, part);
}

// Counts what is done.
void Commit::settle(const Piece& piece) {
  const std::lock_guard lock(done_mutex_);
  done_ += piece.length;
  if (progress) progress(done_, total_);
}

}  // namespace cairn
