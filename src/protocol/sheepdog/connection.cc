#include "protocol/sheepdog/connection.h"

#include <fmt/core.h>

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

}  // namespace

Connection::Connection(std::unique_ptr<Stream> stream, std::chrono::milliseconds stall)
    : PipelinedConnection(std::move(stream), "the Sheepdog daemon breaks the protocol: "),
      stall_(stall) {}
Connection::~Connection() = default;

void Connection::start() {
  PipelinedConnection::start();
  spawn(watch());
}

Task<bool> Connection::perform(Operation& operation) { return transact(operation, operation.data); }

void Connection::encode(const PipelinedRequest& request, uint32_t index, uint32_t generation,
                        std::vector<std::byte>& header) const {
  const auto& operation = static_cast<const Operation&>(request);
  Header all = operation.header;
  set_id(all, generation << kSlotBits | index);
  const size_t length = operation.data.empty() ? operation.out.size() : operation.data.size();
  set_length(all, static_cast<uint32_t>(length));
  header.assign(all.begin(), all.end());
}

Operation& Connection::find(uint32_t id) const {
  const Slot& slot = slots()[id % kMostUnderWay];
  const uint32_t generation = slot.generation << kSlotBits;
  if (!slot.waits() || !slot.request->sent || generation != (id & ~(kMostUnderWay - 1)))
    broken("it answers a request that was not made");
  return static_cast<Operation&>(*slot.request);
}

Task<void> Connection::receive_one() {
  std::array<std::byte, kHeaderBytes> raw;
  const bool there = co_await stream().read_exact(raw);
  if (!there) throw Error(ErrorKind::kIo, "the Sheepdog daemon closed the connection");
  const Response response = Response::decode(raw);
  Operation& operation = find(response.id);
  if (response.opcode != opcode_of(operation.header))
    broken("it answers with the code of another operation");
  if (response.length > operation.out.size())
    broken(fmt::format("it sends {} bytes where {} were asked for", response.length,
                       operation.out.size()));
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
    const bool whole = co_await stream().read_exact(stored);
    if (!whole) throw Error(ErrorKind::kIo, "the Sheepdog daemon closed the connection");
  }
  std::fill(operation.out.begin() + static_cast<ptrdiff_t>(begin + response.length),
            operation.out.end(), std::byte{});
  operation.response = response;
  has_answered_ = true;
  finish(operation);
}

bool Connection::stalled() {
  const auto now = Clock::now();
  if (stream().moved() - moved_ >= kSlowBytes) {
    moved_ = stream().moved();
    alive_ = now;
  }
  return std::any_of(slots().begin(), slots().end(), [&](const Slot& slot) {
    if (!slot.waits()) return false;
    const auto waited = now - slot.since;
    const auto patience = static_cast<const Operation*>(slot.request)->patience;
    if (patience.count() != 0 && waited > patience) return true;
    return waited > stall_ * kMostPeriods || (waited > stall_ && now - alive_ > stall_);
  });
}

Task<void> Connection::watch() {
  const auto moment = std::clamp<std::chrono::milliseconds>(
      stall_ / 8, std::chrono::milliseconds(20), std::chrono::milliseconds(500));
  while (!lost() && !watching_.woken()) {
    co_await watching_.sleep_for(moment);
    if (lost() || !stalled()) continue;
    abort_for(fmt::format("the Sheepdog daemon has not answered for {} seconds",
                          (stall_.count() + 999) / 1000));
    break;
  }
}

Task<void> Connection::close() {
  co_await watching_.wake();
  co_await end();
}

}  // namespace cairn::sheepdog
