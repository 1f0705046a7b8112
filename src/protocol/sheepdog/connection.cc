#include "protocol/sheepdog/connection.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "base/error.h"

namespace cairn::sheepdog {
namespace {

// A slow line is no dead one: while so many bytes go over it in a period of silence a request may
// take longer, up to this many periods.
constexpr uint64_t kSlowBytes = 1 << 20;
constexpr int kMostPeriods = 10;
// Slots are the low bits of an ID, their generation the others.
constexpr unsigned kSlotBits = 6;
static_assert(Connection::kMostUnderWay == 1 << kSlotBits);

const std::string kBroken = "the Sheepdog daemon breaks the protocol: ";

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorKind::kInvalid, kBroken + what);
}

}  // namespace

Connection::Connection(std::unique_ptr<Stream> stream, std::chrono::milliseconds stall)
    : stream_(std::move(stream)), stall_(stall), slots_(kMostUnderWay) {}
Connection::~Connection() = default;

void Connection::start() {
  tasks_.spawn(listen());
  tasks_.spawn(watch());
}

struct Connection::Answered {
  Operation& operation;
  bool await_ready() const noexcept { return operation.ended; }
  void await_suspend(std::coroutine_handle<> handle) noexcept { operation.waiter = handle; }
  void await_resume() const noexcept {}
};

Task<bool> Connection::perform(Operation& operation) {
  co_await slots_free_.acquire();
  if (lost_ || closing_) {
    slots_free_.release();
    co_return false;
  }
  size_t index = 0;
  while (slots_[index].operation != nullptr) ++index;
  Slot& slot = slots_[index];
  slot.operation = &operation;
  ++slot.generation;
  slot.since = Clock::now();
  operation.lost = operation.ended = false;
  Header header = operation.header;
  set_id(header, static_cast<uint32_t>(slot.generation << kSlotBits | index));
  const size_t length = operation.data.empty() ? operation.out.size() : operation.data.size();
  set_length(header, static_cast<uint32_t>(length));
  try {
    auto guard = co_await sending_.lock();
    if (!lost_ && !operation.ended) {
      operation.sent = true;
      std::array<iovec, 2> parts = {
          iovec{header.data(), header.size()},
          iovec{const_cast<std::byte*>(operation.data.data()), operation.data.size()}};
      const size_t count = operation.data.empty() ? 1 : 2;
      co_await stream_->write_all(std::span(parts).first(count));
    }
  } catch (const Error& error) {
    if (reason_.empty()) reason_ = error.message();
    // The listener finds out, and ends all that wait.
    stream_->abort();
  }
  // The listener may be storing into the buffers: it has the last word.
  Answered answered{operation};
  co_await answered;
  slot.operation = nullptr;
  slots_free_.release();
  co_return !operation.lost;
}

Connection::Slot& Connection::find(uint32_t id) {
  Slot& slot = slots_[id % kMostUnderWay];
  const auto generation = static_cast<uint32_t>(slot.generation << kSlotBits);
  if (slot.operation == nullptr || slot.operation->ended || !slot.operation->sent ||
      generation != (id & ~(kMostUnderWay - 1)))
    broken("it answers a request that was not made");
  return slot;
}

Task<void> Connection::receive_one() {
  std::array<std::byte, kHeaderBytes> raw;
  const bool there = co_await stream_->read_exact(raw);
  if (!there) throw Error(ErrorKind::kIo, "the Sheepdog daemon closed the connection");
  const Response response = Response::decode(raw);
  Operation& operation = *find(response.id).operation;
  if (response.opcode != opcode_of(operation.header))
    broken("it answers with the code of another operation");
  if (response.length > operation.out.size())
    broken("it sends " + std::to_string(response.length) + " bytes where " +
           std::to_string(operation.out.size()) + " were asked for");
  const bool failed = response.result != Result::kSuccess;
  // Zeroes around the data may have been left out. They all may: then there are no data at all.
  const bool shifted = opcode_of(operation.header) == Opcode::kReadObject && !failed;
  const uint64_t begin =
      shifted && response.length < operation.out.size() ? response.data_offset : 0;
  if (begin > operation.out.size() - response.length)
    broken("it sends data outside of the range that was read");
  std::fill_n(operation.out.begin(), begin, std::byte{});
  const MutableByteSpan stored = operation.out.subspan(begin, response.length);
  if (!stored.empty()) {
    const bool whole = co_await stream_->read_exact(stored);
    if (!whole) throw Error(ErrorKind::kIo, "the Sheepdog daemon closed the connection");
  }
  std::fill(operation.out.begin() + static_cast<ptrdiff_t>(begin + response.length),
            operation.out.end(), std::byte{});
  operation.response = response;
  operation.ended = has_answered_ = true;
  if (operation.waiter) Worker::current()->post(std::exchange(operation.waiter, nullptr));
}

void Connection::fail_all() {
  for (Slot& slot : slots_) {
    Operation* operation = slot.operation;
    if (operation == nullptr || operation->ended) continue;
    operation->lost = operation->ended = true;
    if (operation->waiter) Worker::current()->post(std::exchange(operation->waiter, nullptr));
  }
}

Task<void> Connection::listen() {
  try {
    while (true) co_await receive_one();
  } catch (const Error& error) {
    if (reason_.empty() || error.kind() == ErrorKind::kInvalid) reason_ = error.message();
    if (error.kind() == ErrorKind::kInvalid) violation_ = reason_;
  } catch (const std::bad_alloc&) {
    reason_ = "out of memory";
  }
  lost_ = true;
  stream_->abort();
  fail_all();
  co_await watching_.wake();
}

bool Connection::stalled() {
  const auto now = Clock::now();
  if (stream_->moved() - moved_ >= kSlowBytes) {
    moved_ = stream_->moved();
    alive_ = now;
  }
  return std::any_of(slots_.begin(), slots_.end(), [&](const Slot& slot) {
    if (slot.operation == nullptr || slot.operation->ended) return false;
    const auto waited = now - slot.since;
    const auto patience = slot.operation->patience;
    if (patience.count() != 0 && waited > patience) return true;
    return waited > stall_ * kMostPeriods || (waited > stall_ && now - alive_ > stall_);
  });
}

Task<void> Connection::watch() {
  const auto moment = std::clamp<std::chrono::milliseconds>(
      stall_ / 8, std::chrono::milliseconds(20), std::chrono::milliseconds(500));
  while (!lost_) {
    co_await watching_.sleep_for(moment);
    if (lost_ || !stalled()) continue;
    if (reason_.empty())
      reason_ = "the Sheepdog daemon has not answered for " +
                std::to_string((stall_.count() + 999) / 1000) + " seconds";
    stream_->abort();
    break;
  }
}

Task<void> Connection::close() {
  closing_ = true;
  stream_->abort();
  co_await tasks_.join();
}

}  // namespace cairn::sheepdog
