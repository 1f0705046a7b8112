#include "export/nbd/session.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>

#include "base/error.h"
#include "block/remote.h"

namespace cairn::nbd::server {
namespace {

// Replies are handed to the socket when this much has gathered, whatever else there is to do.
constexpr size_t kGatherBytes = 256 << 10;
constexpr size_t kGatherReplies = 32;

}  // namespace

PayloadPool::~PayloadPool() { memory_.let_go(kept_); }

AlignedBuffer PayloadPool::take(size_t bytes) {
  const size_t size = std::bit_ceil(std::max<size_t>(bytes, 4096));
  for (size_t i = free_.size(); i-- != 0;) {
    if (free_[i].size() != size) continue;
    AlignedBuffer buffer = std::move(free_[i]);
    free_.erase(free_.begin() + static_cast<ptrdiff_t>(i));
    kept_ -= size;
    memory_.let_go(size);
    return buffer;
  }
  return AlignedBuffer(size);
}

void PayloadPool::give_back(AlignedBuffer buffer) {
  if (buffer.size() == 0) return;
  if (kept_ + buffer.size() > kMostKept || !memory_.keep(buffer.size())) return;
  kept_ += buffer.size();
  free_.push_back(std::move(buffer));
}

Session::Session(Server& server, Connection& connection, Stream& stream, Agreement agreement)
    : server_(server),
      connection_(connection),
      stream_(stream),
      agreement_(std::move(agreement)),
      export_(*agreement_.exported),
      node_(export_.node()),
      sizes_(export_.block_sizes()),
      most_memory_(is_remote(node_) ? kMostRemoteMemory : kMostMemory),
      pool_(server.memory()) {}

std::unique_ptr<Session::Job> Session::new_job() {
  if (free_jobs_.empty()) return std::make_unique<Job>();
  std::unique_ptr<Job> job = std::move(free_jobs_.back());
  free_jobs_.pop_back();
  return job;
}

void Session::recycle(std::unique_ptr<Job> job) {
  pool_.give_back(std::exchange(job->payload, AlignedBuffer()));
  if (job->memory != 0) memory_.release(job->memory);
  if (job->shared != 0) {
    server_.memory().release(job->shared);
    connection_.held.fetch_sub(job->shared);
  }
  slots_.release();
  job->memory = job->shared = 0;
  job->query = {};
  job->pieces.clear();
  if (job->headers.capacity() > 4096) Bytes().swap(job->headers);
  job->headers.clear();
  if (free_jobs_.size() < kMostRequests) free_jobs_.push_back(std::move(job));
}

struct Session::Sent {
  Session& session;
  bool await_ready() const noexcept {
    return session.broken_ || session.unsent_bytes_ < kMostUnsent;
  }
  void await_suspend(std::coroutine_handle<> handle) const noexcept { session.reader_ = handle; }
  void await_resume() const noexcept {}
};

Task<void> Session::run() {
  std::exception_ptr error;
  try {
    bool more = true;
    while (more) {
      more = co_await next_request();
      // The client gets what is ready before it is waited for, and never much later.
      if (!queue_.empty() && (stream_.buffered() == 0 || queued_bytes_ >= kGatherBytes ||
                              queue_.size() >= kGatherReplies))
        co_await yield_now();
      co_await Sent{*this};
      if (broken_) break;
    }
  } catch (...) {
    error = std::current_exception();
    // Whatever follows on this connection makes no sense.
    broken_ = true;
  }
  co_await group_.join();
  if (error) std::rethrow_exception(error);
}

Task<bool> Session::next_request() {
  const bool extended = agreement_.extended;
  std::array<std::byte, Request::kExtendedBytes> raw{};
  const MutableByteSpan header =
      MutableByteSpan(raw).first(extended ? Request::kExtendedBytes : Request::kBytes);
  // What is not here yet when the server ends is not waited for.
  if (server_.stopping() && stream_.buffered() < header.size()) co_return false;
  const bool some = co_await stream_.read_exact(header);
  if (!some) co_return false;
  const Request request = Request::decode(header, extended);
  connection_.requests.fetch_add(1, std::memory_order_relaxed);
  if (request.command == Command::kDisconnect) co_return false;

  const bool payload_follows =
      request.command == Command::kWrite || (extended && (request.flags & kCmdPayloadLen) != 0);
  co_await slots_.acquire();
  std::unique_ptr<Job> job = new_job();
  job->request = request;
  if (request.command == Command::kRead && request.length <= sizes_.maximum)
    job->memory = request.length;
  if (payload_follows && request.length <= sizes_.maximum) job->memory = request.length;
  if (job->memory != 0) {
    const uint64_t bytes = job->memory;
    // A waiting reader must not keep replies from being sent that would free memory.
    job->memory = std::min(job->memory, most_memory_);
    co_await memory_.acquire(job->memory);
    job->shared = bytes;
  }
  std::exception_ptr error;
  try {
    co_await claim(*job, std::exchange(job->shared, 0));
    co_await take_payload(*job, payload_follows);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    recycle(std::move(job));
    std::rethrow_exception(error);
  }
  group_.spawn(execute(std::move(job)));
  co_return true;
}

// Memory of the server's. Throws when the connection has no use for it any more.
Task<void> Session::claim(Job& job, uint64_t bytes) {
  if (bytes == 0) co_return;
  ServerMemory& memory = server_.memory();
  if (!memory.take_now(bytes)) {
    const uint64_t ticket = memory.queue();
    auto look = std::chrono::steady_clock::now();
    while (!memory.take(ticket, bytes)) {
      if (broken_ || server_.stopping()) {
        memory.leave(ticket);
        throw Error(ErrorKind::kIo, "connection: ended while a request waited for memory");
      }
      const auto now = std::chrono::steady_clock::now();
      if (now >= look) {
        server_.drop_stalled();
        look = now + std::chrono::milliseconds(200);
      }
      co_await sleep_for(std::chrono::milliseconds(2));
    }
  }
  job.shared = bytes;
  connection_.held.fetch_add(bytes);
}

// Reads what follows the header. Refused payloads are dropped; those that are too long for that end
// the connection.
Task<void> Session::take_payload(Job& job, bool payload_follows) {
  if (!payload_follows) co_return;
  Request& request = job.request;
  const uint64_t length = request.length;
  if (length > sizes_.maximum) {
    if (agreement_.extended || length > kMostDropped)
      throw Error(ErrorKind::kInvalid, fmt::format("payload of {} bytes", length));
    co_await stream_.skip(length);
    co_return;
  }
  if (request.command == Command::kBlockStatus) {
    // No more ids than there are contexts make sense.
    if (length > 8 + 4 * (agreement_.contexts.size() + 1)) {
      co_await stream_.skip(length);
      job.query.length = 0;
      co_return;
    }
    Bytes bytes(length);
    co_await stream_.read_exact(bytes);
    try {
      job.query = StatusQuery::decode(bytes);
    } catch (const Error&) {
      job.query = {};
    }
    co_return;
  }
  if (request.command != Command::kWrite) {
    co_await stream_.skip(length);
    co_return;
  }
  if (length == 0) co_return;
  job.payload = pool_.take(length);
  connection_.on_socket.fetch_add(1);
  bool some = false;
  try {
    some = co_await stream_.read_exact(job.payload.span().first(length));
  } catch (...) {
    connection_.on_socket.fetch_sub(1);
    throw;
  }
  connection_.on_socket.fetch_sub(1);
  if (!some) throw Error(ErrorKind::kIo, "connection: ended in the middle of a message");
}

Task<void> Session::execute(std::unique_ptr<Job> job) {
  int error = 0;
  std::string text;
  try {
    const Refusal refusal = validate(job->request, (job->request.flags & kCmdPayloadLen) != 0);
    if (refusal.error == 0) {
      co_await perform(*job);
    } else {
      error = refusal.error;
      text = refusal.text;
    }
  } catch (const Error& caught) {
    error = caught.error_number() == 0 ? EIO : caught.error_number();
    // The whole message names files of this machine.
    text = caught.cause();
  } catch (const std::bad_alloc&) {
    error = ENOMEM;
    text = "out of memory";
  }
  if (error != 0) reply_error(*job, error, text);
  enqueue(std::move(job));
}

void Session::enqueue(std::unique_ptr<Job> job) {
  if (broken_) {
    recycle(std::move(job));
    return;
  }
  size_t bytes = 0;
  for (const Piece& piece : job->pieces) bytes += piece.length;
  queued_bytes_ += bytes;
  unsent_bytes_ += bytes;
  queue_.push_back(std::move(job));
  if (writing_) return;
  writing_ = true;
  group_.spawn(write_replies());
}

// Sends what is queued; one at a time. It begins when everybody else who was ready had a turn, so
// that one call carries many replies.
Task<void> Session::write_replies() {
  co_await yield_now();
  std::vector<std::unique_ptr<Job>> batch;
  while (!queue_.empty()) {
    batch.clear();
    batch.swap(queue_);
    const size_t bytes = std::exchange(queued_bytes_, 0);
    vectors_.clear();
    for (const auto& job : batch) {
      for (const Piece& piece : job->pieces) {
        std::byte* base = piece.payload ? job->payload.data() : job->headers.data();
        vectors_.push_back({base + piece.offset, piece.length});
      }
    }
    connection_.on_socket.fetch_add(1);
    try {
      if (!broken_) co_await stream_.write_all(std::span<iovec>(vectors_));
    } catch (const Error&) {
      // The reader finds out as well and ends the connection.
      broken_ = true;
      stream_.abort();
    }
    connection_.on_socket.fetch_sub(1);
    for (auto& job : batch) recycle(std::move(job));
    unsent_bytes_ -= bytes;
    if (reader_ && (broken_ || unsent_bytes_ < kMostUnsent))
      Worker::current()->post(std::exchange(reader_, nullptr));
  }
  writing_ = false;
}

}  // namespace cairn::nbd::server
