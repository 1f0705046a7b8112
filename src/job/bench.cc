#include "job/bench.h"

#include <algorithm>
#include <cstring>

#include "async/task_group.h"

namespace cairn {
namespace {

constexpr uint64_t kReportedRequests = 256;

}  // namespace

Bench::Bench(Context& context, NodePtr node, BenchOptions options, const CancelSource& cancel)
    : context_(context), node_(std::move(node)), options_(options), cancel_(cancel) {
  if (options_.write) {
    pattern_ = AlignedBuffer(options_.size);
    std::memset(pattern_.data(), static_cast<int>(options_.pattern), pattern_.size());
  }
}

Task<void> Bench::run() {
  if (options_.size > node_->length())
    throw Error(ErrorKind::kIo, "a request is larger than the image");
  if (options_.offset > node_->length() - options_.size)
    throw Error(ErrorKind::kIo, "the first request is past the end of the image");
  const unsigned workers = std::min(options_.workers, context_.runtime().worker_count());
  const auto depth = static_cast<unsigned>(std::min<uint64_t>(options_.depth, options_.count));
  TaskGroup group;
  for (unsigned i = 0; i < depth; ++i)
    group.spawn_on(context_.runtime().worker(i % std::max(1u, workers)), work());
  co_await group.join();
}

// Where request NUMBER goes: as if each had been sent in turn.
uint64_t Bench::offset_of(uint64_t number) const {
  const uint64_t length = node_->length();
  const auto distance = static_cast<unsigned __int128>(number) * options_.step + options_.offset;
  const auto at = static_cast<uint64_t>(distance % length);
  // One that would cross the end goes to the start instead.
  const uint64_t places = length - options_.size + 1;
  return at < places ? at : at % places;
}

Task<void> Bench::work() {
  // All are started before the first one, which may never have to wait, takes its worker.
  co_await yield_now();
  AlignedBuffer buffer(options_.write ? 0 : options_.size);
  while (!failed_) {
    cancel_.check();
    const uint64_t number = next_.fetch_add(1, std::memory_order_relaxed);
    if (number >= options_.count) co_return;
    const uint64_t offset = offset_of(number);
    try {
      if (!options_.write) {
        co_await node_->read(offset, buffer.span());
      } else if (options_.flush_interval == 0) {
        co_await node_->write(offset, std::as_const(pattern_).span());
      } else {
        {
          auto guard = co_await draining_.shared();
          co_await node_->write(offset, std::as_const(pattern_).span());
        }
        co_await flush_after(written_.fetch_add(1) + 1);
      }
    } catch (...) {
      failed_ = true;
      throw;
    }
    if (progress && number % kReportedRequests == 0)
      progress(number * options_.size, options_.count * options_.size);
  }
}

Task<void> Bench::flush_after(uint64_t written) {
  if (written % options_.flush_interval != 0) co_return;
  if (options_.drain) {
    auto guard = co_await draining_.exclusive();
    co_await node_->flush();
  } else {
    co_await node_->flush();
  }
}

}  // namespace cairn
