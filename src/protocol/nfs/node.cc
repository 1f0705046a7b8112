#include "protocol/nfs/node.h"

#include <algorithm>
#include <cstring>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn::nfs {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(250);

}  // namespace

NfsNode::NfsNode(Context& context, const Driver& driver, Target target, bool writable,
                 std::string name)
    : Node(context, driver),
      target_(std::move(target)),
      writable_(writable),
      sessions_(target_.sessions, [this] { return open_session(); }) {
  set_filename(std::move(name));
  mutable_limits().remote = true;
}

NfsNode::~NfsNode() = default;

Task<void> NfsNode::connect() { co_await sessions_.choose(); }

Task<NfsNode::SessionPtr> NfsNode::open_session() {
  auto session = std::make_shared<Session>(target_, writable_, false, context().cancel);
  co_await session->open();
  // One session is opened at a time.
  if (opened_) {
    check_same(session->attributes());
    co_return session;
  }
  first_ = session->attributes();
  set_length(first_.size);
  opened_ = true;
  co_return session;
}

// What others have written meanwhile is not what was read before.
void NfsNode::check_same(const Attributes& now) const {
  const bool same_file = now.inode == first_.inode && now.device == first_.device;
  const bool same_bytes = now.size == first_.size && now.modified == first_.modified &&
                          now.modified_ns == first_.modified_ns;
  if (same_file && (wrote_ || same_bytes)) return;
  throw Error(ErrorKind::kIo, filename() + ": the file changed on the server while it was used");
}

Task<Operation> NfsNode::perform(Operation request) {
  for (unsigned attempt = 0;; ++attempt) {
    Operation operation = request;
    std::exception_ptr error;
    bool again = false;
    try {
      const SessionPtr session = co_await sessions_.choose();
      co_await session->perform(operation);
      error = operation.error();
      again = operation.lost();
    } catch (const Error& failure) {
      error = std::current_exception();
      // The server may be restarting.
      again = attempt != 0 && failure.kind() == ErrorKind::kIo;
    }
    if (!error) co_return operation;
    const bool cancelled = context().cancel != nullptr && context().cancel->requested();
    if (!again || attempt >= target_.retries || cancelled) std::rethrow_exception(error);
    co_await sleep_for(kFirstWait * (1 << std::min(attempt, 5U)));
  }
}

Task<void> NfsNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t end = length();
  const size_t inside = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  std::memset(out.data() + inside, 0, out.size() - inside);
  if (inside != 0) co_await perform(Operation::read(offset, out.first(inside)));
}

std::optional<uint64_t> NfsNode::epoch_of(const Operation& operation) {
  return target_.version == 3 ? operation.verifier() : sessions_.losses();
}

void NfsNode::note_write(std::optional<uint64_t> epoch) {
  const std::lock_guard lock(state_);
  epoch_ = !unflushed_ || epoch_ == epoch ? epoch : std::nullopt;
  unflushed_ = true;
}

Task<void> NfsNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  if (in.empty()) co_return;
  wrote_ = true;
  // Of version 4: as it was when the write began.
  const uint64_t losses = sessions_.losses();
  const Operation done = co_await perform(Operation::write(offset, in));
  note_write(target_.version == 3 ? done.verifier() : losses);
  raise_length(offset + in.size());
}

// There is nothing to give space back with.
Task<void> NfsNode::do_discard(uint64_t, uint64_t) { co_return; }

Task<void> NfsNode::do_flush() {
  std::optional<uint64_t> before;
  {
    // A write that ends from here on is the next flush's.
    const std::lock_guard lock(state_);
    if (!unflushed_) co_return;
    before = epoch_;
    unflushed_ = false;
  }
  std::optional<uint64_t> after;
  try {
    // The server puts the whole file on stable storage, also what other sessions wrote.
    const Operation done = co_await perform(Operation(Operation::Kind::kSync));
    after = epoch_of(done);
  } catch (...) {
    note_write(before);
    throw;
  }
  if (before && before == after) co_return;
  throw Error(ErrorKind::kIo, filename() +
                                  ": the server restarted, and may have lost what was "
                                  "written before");
}

Task<Extent> NfsNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.data = true;
  extent.allocated = true;
  extent.host = this;
  extent.host_offset = offset;
  co_return extent;
}

Task<void> NfsNode::do_resize(ResizeRequest request) {
  if (request.preallocation != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode '" +
                                             std::string(to_string(request.preallocation)) + "'");
  if (request.length < length() && !request.exact) co_return;
  wrote_ = true;
  co_await perform(Operation::resize(request.length));
  set_length(request.length);
}

Task<std::optional<uint64_t>> NfsNode::allocated_bytes() {
  const Operation operation = co_await perform(Operation(Operation::Kind::kAttributes));
  co_return operation.attributes().used;
}

Task<void> NfsNode::do_close() {
  std::exception_ptr error;
  try {
    // As a kernel does: what a server cannot put on its disk is not lost without a word.
    co_await do_flush();
  } catch (...) {
    error = std::current_exception();
  }
  co_await sessions_.close();
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn::nfs
