#include "protocol/ssh/node.h"

#include "block/context.h"
#include "block/driver.h"

namespace cairn::ssh {

SshNode::SshNode(Context& context, const Driver& driver, Target target, bool writable,
                 std::string name)
    : FileSessionNode(context, driver, std::move(name), target.sessions, target.retries),
      target_(std::move(target)),
      writable_(writable) {}

SshNode::~SshNode() = default;

FileSessionNode::SessionPtr SshNode::make_session() const {
  return std::make_shared<Session>(target_, writable_, false, context().cancel);
}

Task<void> SshNode::change(FileOperation operation) {
  const SessionPtr session = co_await choose();
  note_change();
  co_await session->perform(operation);
  if (operation.error) std::rethrow_exception(operation.error);
}

Task<void> SshNode::send_write(uint64_t offset, ByteSpan in) {
  return change(FileOperation::write(offset, in));
}

Task<void> SshNode::do_flush() {
  const SessionPtr session = co_await choose();
  if (!session->can_sync()) {
    if (changed() && !warned_.exchange(true)) {
      context().warn("ssh server " + target_.server.host + " does not support fsync");
      context().tell("to support fsync, you need OpenSSH >= 6.3");
    }
    co_return;
  }
  // The server puts the whole file on stable storage, also what other sessions wrote.
  FileOperation operation = FileOperation::sync();
  co_await session->perform(operation);
  if (operation.error) std::rethrow_exception(operation.error);
}

Task<void> SshNode::send_length(uint64_t length) { return change(FileOperation::resize(length)); }

void SshNode::check_shrinking() const {
  if (!context().profile.extensions)
    throw Error(ErrorKind::kUnsupported, "ssh driver does not support shrinking files");
}

}  // namespace cairn::ssh
