#include "job/hash.h"

#include <fmt/core.h>

#include <algorithm>

#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/remote.h"

namespace cairn {
namespace {

constexpr unsigned kParallel = 6;
constexpr uint64_t kHashUnitBytes = 512 << 10;
// Where requests travel.
constexpr unsigned kRemoteParallel = 16;
constexpr uint64_t kHashRemoteUnitBytes = 1 << 20;
// Of a hole at a time: long enough to cost nothing, short enough to stop soon when asked to.
constexpr uint64_t kHoleBytes = 64 << 20;

Error at_byte(const Error& cause, uint64_t offset) {
  return cause.behind(fmt::format("error while reading at byte {}: {}", offset, cause.cause()));
}

}  // namespace

Task<void> OrderedDigest::count(ByteSpan bytes, uint64_t zeroes) {
  co_await run_blocking([&] {
    digest_.add(bytes);
    digest_.add_zeroes(zeroes);
  });
}

Task<void> OrderedDigest::add(uint64_t number, ByteSpan bytes) {
  Task<void> counting = count(bytes, 0);
  co_await order_.run(number, std::move(counting));
}

Task<void> OrderedDigest::add_zeroes(uint64_t number, uint64_t length) {
  const ByteSpan nothing;
  Task<void> counting = count(nothing, length);
  co_await order_.run(number, std::move(counting));
}

Task<void> OrderedDigest::skip(uint64_t number) { co_await add_zeroes(number, 0); }

Hash::Hash(Context& context, NodePtr node, std::string_view algorithm, const CancelSource& cancel)
    : context_(context), node_(std::move(node)), digest_(algorithm), cancel_(cancel) {
  const bool remote = is_remote(*node_);
  parallel_ = remote ? kRemoteParallel : kParallel;
  // A compressed cluster is decoded once, by one piece.
  unit_ = std::max(remote ? kHashRemoteUnitBytes : kHashUnitBytes, node_->limits().cluster_bytes);
}

Task<std::string> Hash::run() {
  const unsigned workers = std::min(parallel_, context_.runtime().worker_count());
  TaskGroup group;
  for (unsigned i = 0; i < parallel_; ++i)
    group.spawn_on(context_.runtime().worker(i % workers), work());
  co_await group.join();
  co_return digest_.finish();
}

Task<Hash::Piece> Hash::next_piece() {
  auto guard = co_await scan_.lock();
  Piece piece;
  piece.offset = position_;
  if (position_ >= node_->length() || failed_) co_return piece;
  if (position_ >= known_end_) {
    const Extent extent = co_await node_->extent_at(position_, node_->length() - position_);
    known_end_ = position_ + extent.length;
    known_zero_ = extent.zero;
  }
  piece.zero = known_zero_;
  uint64_t most = position_ + kHoleBytes;
  if (!piece.zero) most = align_down(position_, unit_) + unit_;
  piece.length = std::min(known_end_, most) - position_;
  if (!piece.zero) budget.count(piece.length);
  piece.number = numbers_++;
  position_ += piece.length;
  co_return piece;
}

Task<void> Hash::work() {
  // All are started before the first one, which may never have to wait, takes its worker.
  co_await yield_now();
  AlignedBuffer buffer(unit_);
  while (true) {
    Piece piece;
    std::exception_ptr error;
    try {
      cancel_.check();
      piece = co_await next_piece();
    } catch (...) {
      failed_ = true;
      throw;
    }
    if (piece.length == 0) co_return;
    const MutableByteSpan bytes = buffer.span().first(piece.zero ? 0 : piece.length);
    try {
      if (!piece.zero) co_await node_->read(piece.offset, bytes);
    } catch (const Error& caught) {
      error = std::make_exception_ptr(at_byte(caught, piece.offset));
    } catch (...) {
      error = std::current_exception();
    }
    if (error) {
      failed_ = true;
      co_await digest_.skip(piece.number);
      std::rethrow_exception(error);
    }
    if (piece.zero)
      co_await digest_.add_zeroes(piece.number, piece.length);
    else
      co_await digest_.add(piece.number, bytes);
    const uint64_t done = done_.fetch_add(piece.length) + piece.length;
    if (progress) progress(done, node_->length());
  }
}

}  // namespace cairn
