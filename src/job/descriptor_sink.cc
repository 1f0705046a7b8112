#include "job/descriptor_sink.h"

#include <algorithm>
#include <cerrno>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"
#include "platform/file.h"
#include "platform/poll.h"

namespace cairn {
namespace {

constexpr size_t kWriteBytes = 1 << 20;
// How long a wait lasts before it is asked whether anybody still wants it.
constexpr int kSendWait = 100;

Error send_error(const std::string& name, int error) {
  Error result = Error::system(error, name);
  if (error == EPIPE) result.hint("The program that reads it ended before it had everything.");
  return result;
}

}  // namespace

DescriptorSink::DescriptorSink(Context& context, int fd, std::string name)
    : context_(context), fd_(fd), name_(std::move(name)) {
  const auto status = platform::status_of(fd);
  if (!status) throw Error::system(errno, name_);
  if (!status->is_regular() && status->type != platform::FileType::kBlockDevice) {
    // An open file of our own: the flags of this one are not those of others that share it.
    if (status->type == platform::FileType::kPipe)
      unblocked_ = OwnFd(platform::reopen_unblocked(fd));
    in_pieces_ = !unblocked_;
  }
}

DescriptorSink::~DescriptorSink() = default;

void DescriptorSink::check() const {
  pollfd state{.fd = fd_.get(), .events = 0, .revents = 0};
  if (platform::poll({&state, 1}, 0) == 1 && (state.revents & POLLERR) != 0)
    throw send_error(name_, EPIPE);
}

void DescriptorSink::send(ByteSpan bytes) {
  const int fd = unblocked_ ? unblocked_.get() : fd_.get();
  while (!bytes.empty()) {
    if (context_.cancel != nullptr) context_.cancel->check();
    if (abandoned_) throw Error(ErrorKind::kCancelled, name_ + ": the work has failed");
    if (in_pieces_) {
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      if (platform::poll({&ready, 1}, kSendWait) == 0) continue;
    }
    const size_t most = in_pieces_ ? platform::kPipeBytes : kWriteBytes;
    const ssize_t wrote = platform::write(fd, bytes.data(), std::min(bytes.size(), most));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) {
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      platform::poll({&ready, 1}, kSendWait);
      continue;
    }
    if (wrote < 0) throw send_error(name_, errno);
    bytes = bytes.subspan(static_cast<size_t>(wrote));
    sent_ = true;
  }
}

Task<void> DescriptorSink::write(ByteSpan bytes) {
  co_await run_blocking([&] { send(bytes); });
}

Task<void> DescriptorSink::finish() {
  unblocked_ = OwnFd();
  if (platform::close(fd_.release()) != 0) throw Error::system(errno, name_);
  co_return;
}

void DescriptorSink::discard(Error& why) {
  if (sent_) why.hint("What was sent to " + name_ + " is incomplete and must not be used.");
}

}  // namespace cairn
