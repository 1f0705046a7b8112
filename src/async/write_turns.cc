#include "async/write_turns.h"

#include <array>
#include <mutex>
#include <utility>

#include "async/engine.h"
#include "async/runtime.h"

namespace cairn {
namespace {

// So many writes of others are done in a row; then one of them takes over.
constexpr unsigned kMostOfOthers = 16;
constexpr unsigned kMostPosted = 2;
// Writes of so many bytes go before longer ones, which are those of work in the background; so many
// in a row while one of the others waits.
constexpr uint64_t kShortWrite = 128 << 10;
constexpr unsigned kMostShort = 16;

uint64_t bytes_of_all(std::span<const iovec> buffers) {
  uint64_t bytes = 0;
  for (const iovec& buffer : buffers) bytes += buffer.iov_len;
  return bytes;
}

}  // namespace

struct WriteTurns::Waiting {
  WriteTurns& turns;
  IoEngine::Operation& operation;
  const bool is_short;
  bool is_done = false;

  // True: it is this one's turn. False: somebody else does it.
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    operation.worker = Worker::current();
    operation.handle = handle;
    std::lock_guard lock(turns.mutex_);
    if (!std::exchange(turns.busy_, true)) return false;
    (is_short ? turns.short_ones_ : turns.long_ones_).push_back(this);
    return true;
  }
  bool await_resume() const noexcept { return !is_done; }
};

// Ends a write: the next one that waits, or null, and then nobody is at it any more.
WriteTurns::Waiting* WriteTurns::next() {
  std::lock_guard lock(mutex_);
  if (short_ones_.empty() && long_ones_.empty()) {
    busy_ = false;
    return nullptr;
  }
  const bool is_short = long_ones_.empty() || (!short_ones_.empty() && short_in_row_ < kMostShort);
  short_in_row_ = is_short ? short_in_row_ + 1 : 0;
  std::deque<Waiting*>& waiting = is_short ? short_ones_ : long_ones_;
  Waiting* first = waiting.front();
  waiting.pop_front();
  return first;
}

Task<ssize_t> WriteTurns::write(IoFile file, std::span<const iovec> buffers, uint64_t offset) {
  IoEngine::Operation operation{.kind = IoEngine::Operation::Kind::kWrite,
                                .fd = file.fd,
                                .buffers = buffers,
                                .offset = offset};
  Waiting turn{*this, operation, bytes_of_all(buffers) <= kShortWrite};
  const bool mine = co_await turn;
  if (!mine) co_return operation.result;
  const ssize_t result = perform(operation);
  // Workers are woken for several writes at once: to wake one costs as much as a short write.
  std::array<Waiting*, kMostPosted> ended = {};
  unsigned count = 0;
  const auto post_ended = [&] {
    // After the post the other one's frame may be gone.
    for (Waiting* other : std::span(ended).first(std::exchange(count, 0)))
      other->operation.worker->post(other->operation.handle);
  };
  for (unsigned done = 0; Waiting* other = next(); ++done) {
    if (done == kMostOfOthers) {
      other->operation.worker->post(other->operation.handle);
      break;
    }
    if (!other->is_short) post_ended();
    other->operation.result = perform(other->operation);
    other->is_done = true;
    ended[count++] = other;
    if (count == kMostPosted) post_ended();
  }
  post_ended();
  co_return result;
}

}  // namespace cairn
