#include "protocol/ssh/node.h"

#include <algorithm>
#include <cstring>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn::ssh {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(250);

}  // namespace

SshNode::SshNode(Context& context, const Driver& driver, Target target, bool writable,
                 std::string name)
    : Node(context, driver),
      target_(std::move(target)),
      writable_(writable),
      sessions_(target_.sessions, [this] { return open_session(); }) {
  set_filename(std::move(name));
  mutable_limits().remote = true;
}

SshNode::~SshNode() = default;

Task<void> SshNode::connect() { co_await sessions_.choose(); }

Task<SshNode::SessionPtr> SshNode::open_session() {
  auto session = std::make_shared<Session>(target_, writable_, false, context().cancel);
  co_await session->open();
  // One session is opened at a time.
  if (opened_) {
    check_same(session->attributes());
    co_return session;
  }
  first_ = session->attributes();
  set_length(*first_.size);
  opened_ = true;
  co_return session;
}

// What others have written meanwhile is not what was read before.
void SshNode::check_same(const Attributes& now) const {
  if (wrote_) return;
  if (now.size == first_.size && now.modified == first_.modified) return;
  throw Error(ErrorKind::kIo, filename() + ": the file changed on the server while it was read");
}

Task<void> SshNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t end = length();
  const size_t inside = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  std::memset(out.data() + inside, 0, out.size() - inside);
  out = out.first(inside);
  if (out.empty()) co_return;
  for (unsigned attempt = 0;; ++attempt) {
    std::exception_ptr error;
    bool again = false;
    try {
      const SessionPtr session = co_await sessions_.choose();
      Operation operation = Operation::read(offset, out);
      co_await session->perform(operation);
      error = operation.error();
      again = operation.lost();
    } catch (const Error& failure) {
      error = std::current_exception();
      again = failure.kind() == ErrorKind::kIo && attempt != 0;
    }
    if (!error) co_return;
    const bool cancelled = context().cancel != nullptr && context().cancel->requested();
    if (!again || attempt >= target_.retries || cancelled) std::rethrow_exception(error);
    co_await sleep_for(kFirstWait * (1 << std::min(attempt, 5U)));
  }
}

Task<void> SshNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  if (in.empty()) co_return;
  const SessionPtr session = co_await sessions_.choose();
  wrote_ = true;
  Operation operation = Operation::write(offset, in);
  co_await session->perform(operation);
  if (operation.error()) std::rethrow_exception(operation.error());
  raise_length(offset + in.size());
}

// There is nothing to give space back with.
Task<void> SshNode::do_discard(uint64_t, uint64_t) { co_return; }

Task<void> SshNode::do_flush() {
  const SessionPtr session = co_await sessions_.choose();
  if (!session->can_sync()) {
    if (wrote_ && !warned_.exchange(true)) {
      context().warn("ssh server " + target_.server.host + " does not support fsync");
      context().tell("to support fsync, you need OpenSSH >= 6.3");
    }
    co_return;
  }
  // The server puts the whole file on stable storage, also what other sessions wrote.
  Operation operation(Operation::Kind::kSync);
  co_await session->perform(operation);
  if (operation.error()) std::rethrow_exception(operation.error());
}

Task<Extent> SshNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.data = true;
  extent.allocated = true;
  extent.host = this;
  extent.host_offset = offset;
  co_return extent;
}

Task<void> SshNode::do_resize(ResizeRequest request) {
  if (request.preallocation != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode '" +
                                             std::string(to_string(request.preallocation)) + "'");
  if (request.length < length() && !request.exact) co_return;
  if (request.length < length() && !context().profile.extensions)
    throw Error(ErrorKind::kUnsupported, "ssh driver does not support shrinking files");
  const SessionPtr session = co_await sessions_.choose();
  wrote_ = true;
  Operation operation = Operation::resize(request.length);
  co_await session->perform(operation);
  if (operation.error()) std::rethrow_exception(operation.error());
  set_length(request.length);
}

Task<void> SshNode::do_close() { co_await sessions_.close(); }

}  // namespace cairn::ssh
