#include "job/live/copy_engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "async/runtime.h"
#include "base/arith.h"

namespace cairn::live {
namespace {

// Pieces of a limited job are so short that its progress is even.
constexpr uint64_t kPiecesASecond = 10;
// Where there is data so many bytes are looked at ahead; no piece of it is longer.
constexpr uint64_t kDataAhead = 16 << 20;

}  // namespace

uint64_t CopyEngine::most() const {
  const uint64_t longest = std::max(settings_.most, settings_.unit);
  const uint64_t speed = job_.speed();
  if (speed == 0) return longest;
  return std::clamp(align_down(speed / kPiecesASecond, settings_.unit), settings_.unit, longest);
}

Task<void> CopyEngine::run() {
  while (wanted_->dirty_bytes() != 0) co_await pass();
  if (left_out_) std::rethrow_exception(left_out_);
}

Task<void> CopyEngine::pass() {
  next_ = 0;
  Runtime& runtime = context_.runtime();
  const unsigned workers = runtime.worker_count();
  const unsigned requests = std::max(settings_.requests, workers);
  TaskGroup group;
  // Who waits for the job to be paused waits for these, and not for the one that joins them.
  job_.change_parts(static_cast<int>(requests) - 1);
  for (unsigned i = 0; i < requests; ++i) group.spawn_on(runtime.worker(i % workers), work(group));
  std::exception_ptr error;
  try {
    co_await group.join();
  } catch (...) {
    error = std::current_exception();
  }
  job_.change_parts(1);
  if (error) std::rethrow_exception(error);
}

Task<void> CopyEngine::work(const TaskGroup& group) {
  AlignedBuffer buffer;
  std::exception_ptr error;
  try {
    while (!group.failed()) {
      // Where files are in memory a request never waits: it would go through the whole disk, and
      // the users of this worker, and its monitor, would wait for that.
      co_await yield_to_all();
      co_await job_.pause_point();
      const CopyPiece piece = co_await claim(group);
      if (piece.length == 0) break;
      co_await carry_out(piece, buffer);
    }
  } catch (...) {
    error = std::current_exception();
  }
  job_.change_parts(-1);
  if (error) std::rethrow_exception(error);
}

Task<CopyPiece> CopyEngine::claim(const TaskGroup& group) {
  const Mutex::Guard guard = co_await next_mutex_.lock();
  while (!group.failed()) {
    job_.stop().check();
    const DirtyBitmap::Run run = wanted_->run_at(next_, UINT64_MAX);
    if (run.length == 0) break;
    if (!run.dirty) {
      next_ += run.length;
      continue;
    }
    const CopyPiece piece = co_await take(next_, run.length);
    next_ += piece.length;
    if (piece.kind != CopyPiece::Kind::kSkip) {
      under_way_.fetch_add(piece.length, std::memory_order_relaxed);
      co_return piece;
    }
    if (settings_.count) job_.add_done(piece.length);
    dropped(piece.offset, piece.length);
  }
  co_return CopyPiece{};
}

// What METHOD finds. To look to the end of the disk for each piece of data would take a time that
// grows with the square of its size.
Task<CopyPiece> CopyEngine::look(uint64_t offset, uint64_t max) {
  const uint64_t near = std::min(max, std::max(kDataAhead, settings_.unit));
  CopyPiece piece = co_await method_.look(offset, near);
  if (piece.kind != CopyPiece::Kind::kData && piece.length >= near && near < max)
    piece = co_await method_.look(offset, max);
  piece.offset = offset;
  piece.length = std::min(piece.length, max);
  co_return piece;
}

// The piece at OFFSET, where MAX bytes are wanted; they are no longer then.
Task<CopyPiece> CopyEngine::take(uint64_t offset, uint64_t max) {
  CopyPiece piece;
  for (unsigned failures = 0;; ++failures) {
    std::optional<Error> failed;
    uint64_t held = 0;  // bytes that the watch was given
    try {
      piece = co_await look(offset, max);
      if (piece.length != max) {
        const bool whole = piece.kind == CopyPiece::Kind::kData;
        piece.length = whole ? std::min(align_up(piece.length, settings_.unit), max)
                             : align_down(piece.length, settings_.unit);
      }
      if (piece.length == 0) {
        piece.kind = CopyPiece::Kind::kData;
        piece.length = std::min(settings_.unit, max);
      }
      if (piece.kind == CopyPiece::Kind::kData) piece.length = std::min(piece.length, most());
      held = piece.length;
      taken(offset, held);
      wanted_->clean(offset, piece.length);
      if (piece.kind != CopyPiece::Kind::kData) {
        // What was written since the look is marked; what is written from now on will be.
        const CopyPiece now = co_await method_.look(offset, piece.length);
        if (now.kind != piece.kind || now.length < piece.length) {
          piece.kind = CopyPiece::Kind::kData;
          piece.length = std::min(held, settings_.unit);
          wanted_->mark(offset + piece.length, held - piece.length);
          taken(offset, piece.length);
          dropped(offset, std::exchange(held, piece.length));
        }
      }
      co_return piece;
    } catch (const Error& error) {
      failed = error;
    }
    wanted_->mark(offset, std::min(max, std::max(piece.length, settings_.unit)));
    if (held != 0) dropped(offset, held);
    if (co_await again(*failed, JobSide::kRead, failures)) continue;
    // Left out: what cannot be looked at is not copied either.
    piece = {
        .offset = offset, .length = std::min(settings_.unit, max), .kind = CopyPiece::Kind::kSkip};
    taken(offset, piece.length);
    wanted_->clean(offset, piece.length);
    co_return piece;
  }
}

Task<void> CopyEngine::carry_out(CopyPiece piece, AlignedBuffer& buffer) {
  const bool data = piece.kind == CopyPiece::Kind::kData;
  std::exception_ptr error;
  try {
    if (data && buffer.size() < piece.length)
      buffer = AlignedBuffer(std::max(settings_.unit, settings_.most));
    if (data) co_await job_.admit(piece.length);
    for (unsigned failures = 0;; ++failures) {
      JobSide side = JobSide::kRead;
      std::optional<Error> failed;
      try {
        co_await method_.copy(piece, data ? buffer.span().first(piece.length) : MutableByteSpan{},
                              &side);
      } catch (const Error& caught) {
        failed = caught;
      }
      if (!failed) break;
      if (!co_await again(*failed, side, failures)) break;
    }
    if (settings_.count) job_.add_done(piece.length);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) wanted_->mark(piece.offset, piece.length);
  dropped(piece.offset, piece.length);
  under_way_.fetch_sub(piece.length, std::memory_order_relaxed);
  if (error) std::rethrow_exception(error);
}

// True when the request is to be tried again, false when its piece is left out; throws ERROR when
// the job fails of it.
Task<bool> CopyEngine::again(const Error& error, JobSide side, unsigned failures) {
  if (error.kind() == ErrorKind::kCancelled && job_.cancelled()) throw error;
  const OnError policy = side == JobSide::kRead ? settings_.on_read : settings_.on_write;
  const ErrorAction action = co_await job_.request_failed(policy, side, error, failures);
  const Error shown = error.behind(error.cause());
  if (action == ErrorAction::kReport) throw shown;
  if (action == ErrorAction::kIgnore && settings_.skip_ignored) {
    const std::lock_guard lock(left_out_mutex_);
    if (!left_out_) left_out_ = std::make_exception_ptr(shown);
    co_return false;
  }
  co_await job_.pause_point();
  co_return true;
}

}  // namespace cairn::live
