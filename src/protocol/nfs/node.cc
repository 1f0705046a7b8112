#include "protocol/nfs/node.h"

#include "block/context.h"
#include "block/driver.h"

namespace cairn::nfs {

NfsNode::NfsNode(Context& context, const Driver& driver, Target target, bool writable,
                 std::string name)
    : FileSessionNode(context, driver, std::move(name), target.sessions, target.retries),
      target_(std::move(target)),
      writable_(writable) {}

NfsNode::~NfsNode() = default;

FileSessionNode::SessionPtr NfsNode::make_session() const {
  return std::make_shared<Session>(target_, writable_, false, context().cancel);
}

std::optional<uint64_t> NfsNode::epoch_of(const FileOperation& operation) {
  return target_.version == 3 ? operation.verifier() : losses();
}

void NfsNode::note_write(std::optional<uint64_t> epoch) {
  const std::lock_guard lock(state_);
  epoch_ = !unflushed_ || epoch_ == epoch ? epoch : std::nullopt;
  unflushed_ = true;
}

Task<void> NfsNode::send_write(uint64_t offset, ByteSpan in) {
  note_change();
  // Of version 4: as it was when the write began.
  const uint64_t before = losses();
  const FileOperation done = co_await perform(FileOperation::write(offset, in));
  note_write(target_.version == 3 ? done.verifier() : before);
}

Task<void> NfsNode::do_flush() {
  // What another flush is about to put on stable storage is not there yet.
  const Mutex::Guard turn = co_await flushing_.lock();
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
    const FileOperation done = co_await perform(FileOperation::sync());
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

Task<void> NfsNode::send_length(uint64_t length) {
  note_change();
  co_await perform(FileOperation::resize(length));
}

Task<std::optional<uint64_t>> NfsNode::allocated_bytes() {
  const FileOperation operation = co_await perform(FileOperation::ask_attributes());
  co_return operation.attributes.used;
}

Task<void> NfsNode::do_close() {
  std::exception_ptr error;
  try {
    // As a kernel does: what a server cannot put on its disk is not lost without a word.
    co_await do_flush();
  } catch (...) {
    error = std::current_exception();
  }
  co_await FileSessionNode::do_close();
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn::nfs
