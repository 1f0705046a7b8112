#include "job/commit.h"

#include <algorithm>

#include "async/runtime.h"
#include "async/task_group.h"
#include "base/buffer.h"

namespace cairn {
namespace {
constexpr uint64_t kUnitBytes = 1 << 20;
constexpr unsigned kLeastCopiers = 4;
}  // namespace

// Which layer above the base decides the bytes from OFFSET on. Behind the end of a layer its own
// zeroes hide what is below.
Task<Commit::Piece> Commit::look(uint64_t offset, uint64_t max) {
  Piece piece{.length = max};
  for (size_t i = 0; i < layers_.size(); ++i) {
    Node& layer = *layers_[i];
    Known& known = known_[i];
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
  if (base_->length() < total_) co_await base_->resize({.length = total_});
  begin_ = std::chrono::steady_clock::now();
  Runtime& runtime = base_->context().runtime();
  const unsigned workers = runtime.worker_count();
  TaskGroup group;
  for (unsigned i = 0; i < std::max(kLeastCopiers, workers); ++i)
    group.spawn_on(runtime.worker(i % workers), copy_pieces());
  co_await group.join();
  co_await base_->flush();
}

// Takes the next piece, copies it, and so on. Where the pieces land does not depend on their order.
Task<void> Commit::copy_pieces() {
  co_await yield_now();
  AlignedBuffer buffer(kUnitBytes);
  std::exception_ptr error;
  while (!error) {
    Piece piece;
    uint64_t at = 0;
    try {
      Mutex::Guard guard = co_await next_mutex_.lock();
      cancel_.check();
      at = next_;
      if (at >= total_) break;
      piece = co_await look(at, total_ - at);
      if (piece.layer != nullptr && !piece.zero) piece.length = std::min(piece.length, kUnitBytes);
      next_ = at + piece.length;
      if (piece.layer != nullptr && !piece.zero) copied_ += piece.length;
    } catch (...) {
      error = std::current_exception();
    }
    if (error) break;
    try {
      if (piece.layer != nullptr && piece.zero) {
        co_await base_->write_zeroes(at, piece.length, {.may_unmap = true});
      } else if (piece.layer != nullptr) {
        const MutableByteSpan part = buffer.span().first(piece.length);
        co_await piece.layer->read(at, part);
        co_await base_->write(at, part);
      }
    } catch (...) {
      error = std::current_exception();
    }
    if (error) break;
    co_await settle(piece.length);
  }
  if (!error) co_return;
  {
    // The others end as well.
    Mutex::Guard guard = co_await next_mutex_.lock();
    next_ = total_;
  }
  std::rethrow_exception(error);
}

// Counts what is done, and waits where the rate asks for it.
Task<void> Commit::settle(uint64_t bytes) {
  uint64_t written = 0;
  {
    Mutex::Guard guard = co_await next_mutex_.lock();
    done_ += bytes;
    written = copied_;
    if (progress) progress(done_, total_);
  }
  if (rate_ == 0) co_return;
  const std::chrono::duration<double> due(static_cast<double>(written) /
                                          static_cast<double>(rate_));
  const auto now = std::chrono::steady_clock::now() - begin_;
  if (due > now)
    co_await sleep_for(std::chrono::duration_cast<std::chrono::nanoseconds>(due - now));
}

}  // namespace cairn
