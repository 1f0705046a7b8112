#include "protocol/pipelined_connection.h"

#include <array>
#include <new>
#include <span>
#include <utility>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn {

struct PipelinedConnection::Answered {
  PipelinedRequest& request;
  bool await_ready() const noexcept { return request.ended; }
  void await_suspend(std::coroutine_handle<> handle) noexcept { request.waiter = handle; }
  void await_resume() const noexcept {}
};

PipelinedConnection::PipelinedConnection(std::unique_ptr<Stream> stream, std::string breaks)
    : stream_(std::move(stream)), breaks_(std::move(breaks)), slots_(kMostUnderWay) {}

PipelinedConnection::~PipelinedConnection() = default;

void PipelinedConnection::start() { spawn(listen()); }

Task<bool> PipelinedConnection::transact(PipelinedRequest& request, ByteSpan payload) {
  co_await slots_free_.acquire();
  if (lost_ || closing_) {
    slots_free_.release();
    co_return false;
  }
  uint32_t index = 0;
  while (slots_[index].request != nullptr) ++index;
  Slot& slot = slots_[index];
  slot.request = &request;
  ++slot.generation;
  slot.since = Clock::now();
  request.lost = request.ended = false;
  std::vector<std::byte> header;
  encode(request, index, slot.generation, header);
  try {
    const auto guard = co_await sending_.lock();
    if (!lost_ && !request.ended) {
      request.sent = true;
      std::array<iovec, 2> parts = {iovec{header.data(), header.size()},
                                    iovec{const_cast<std::byte*>(payload.data()), payload.size()}};
      const size_t count = payload.empty() ? 1 : 2;
      co_await stream_->write_all(std::span(parts).first(count));
    }
  } catch (const Error& error) {
    // The listener finds out, and ends all that wait.
    abort_for(error.message());
  }
  // The listener may be storing into the buffers: it has the last word.
  Answered answered{request};
  co_await answered;
  slot.request = nullptr;
  slots_free_.release();
  co_return !request.lost;
}

void PipelinedConnection::finish(PipelinedRequest& request) {
  request.ended = true;
  if (request.waiter) Worker::current()->post(std::exchange(request.waiter, nullptr));
}

void PipelinedConnection::broken(const std::string& what) const {
  throw Error(ErrorKind::kInvalid, breaks_ + what);
}

void PipelinedConnection::abort_for(const std::string& why) {
  if (reason_.empty()) reason_ = why;
  abort();
}

void PipelinedConnection::fail_all() {
  for (const Slot& slot : slots_) {
    if (!slot.waits()) continue;
    slot.request->lost = true;
    finish(*slot.request);
  }
}

Task<void> PipelinedConnection::listen() {
  try {
    while (true) co_await receive_one();
  } catch (const Error& error) {
    const bool violates = error.kind() == ErrorKind::kInvalid;
    if (reason_.empty() || violates) reason_ = error.message();
    if (violates && !reason_.starts_with(breaks_)) reason_ = breaks_ + reason_;
    if (violates) violation_ = reason_;
  } catch (const std::bad_alloc&) {
    reason_ = "out of memory";
  }
  lost_ = true;
  abort();
  fail_all();
}

Task<void> PipelinedConnection::end() {
  shut();
  abort();
  co_await tasks_.join();
}

}  // namespace cairn
