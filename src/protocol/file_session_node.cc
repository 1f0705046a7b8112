#include "protocol/file_session_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"
#include "protocol/driver_options.h"

namespace cairn {
namespace {

constexpr auto kFirstWait = std::chrono::milliseconds(250);

}  // namespace

FileSessionNode::FileSessionNode(Context& context, const Driver& driver, std::string name,
                                 unsigned sessions, unsigned retries)
    : Node(context, driver),
      retries_(retries),
      sessions_(sessions, [this] { return open_session(); }) {
  set_filename(std::move(name));
  mutable_limits().remote = true;
}

FileSessionNode::~FileSessionNode() = default;

Task<void> FileSessionNode::connect() { co_await sessions_.choose(); }

Task<FileSessionNode::SessionPtr> FileSessionNode::open_session() {
  const Reconnecting repair(opened_ && losses() != 0 ? server() : nullptr);
  const SessionPtr session = make_session();
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

Identity FileSessionNode::identity() const {
  // A server that does not say the time.
  if (changed_ || first_.modified == 0) return {};
  const auto seconds = static_cast<int64_t>(first_.modified);
  return {.object = fmt::format("file {}:{}", first_.device, first_.inode),
          .state = modified_at(seconds, static_cast<uint32_t>(first_.modified_ns)),
          .modified = seconds};
}

// What others have written meanwhile is not what was read before.
void FileSessionNode::check_same(const FileAttributes& now) const {
  const bool same_file = now.inode == first_.inode && now.device == first_.device;
  const bool same_bytes = now.size == first_.size && now.modified == first_.modified &&
                          now.modified_ns == first_.modified_ns;
  if (same_file && (changed_ || same_bytes)) return;
  throw Error(ErrorKind::kIo, filename() + ": the file changed on the server while it was used");
}

Task<FileOperation> FileSessionNode::perform(FileOperation request) {
  for (unsigned attempt = 0;; ++attempt) {
    FileOperation operation = request;
    std::exception_ptr error;
    bool again = false;
    try {
      const SessionPtr session = co_await sessions_.choose();
      co_await session->perform(operation);
      error = operation.error;
      again = operation.lost;
    } catch (const Error& failure) {
      error = std::current_exception();
      // The server may be restarting.
      again = attempt != 0 && failure.kind() == ErrorKind::kIo;
    }
    if (!error) co_return operation;
    const bool cancelled = context().cancel != nullptr && context().cancel->requested();
    if (!again || attempt >= retries_ || cancelled) std::rethrow_exception(error);
    co_await sleep_for(kFirstWait * (1 << std::min(attempt, 5U)));
  }
}

Task<void> FileSessionNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t end = length();
  const size_t inside = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  std::memset(out.data() + inside, 0, out.size() - inside);
  if (inside != 0) co_await perform(FileOperation::read(offset, out.first(inside)));
}

Task<void> FileSessionNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  if (in.empty()) co_return;
  const uint64_t end = offset + in.size();
  RwLock::Guard held;
  if (end > length()) held = co_await end_lock_.shared();
  co_await send_write(offset, in);
  raise_length(end);
}

Task<void> FileSessionNode::do_resize(ResizeRequest request) {
  refuse_preallocation(request.preallocation);
  const RwLock::Guard moving = co_await end_lock_.exclusive();
  if (request.length <= length() && !request.exact) co_return;
  if (request.length < length()) check_shrinking();
  co_await send_length(request.length);
  set_length(request.length);
}

Task<void> FileSessionNode::do_close() { co_await sessions_.close(); }

}  // namespace cairn
