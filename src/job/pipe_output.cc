#include "job/pipe_output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/work_report.h"

namespace cairn {
namespace {

constexpr size_t kSendBytes = 1 << 20;
constexpr uint64_t kReportedBytes = 4 << 20;
// How long a wait lasts before it is asked whether anybody still wants it.
constexpr int kSendWait = 100;

Error send_error(const std::string& name, int error) {
  Error result = Error::system(error, name);
  if (error == EPIPE) result.hint("The program that reads it ended before it had everything.");
  return result;
}

}  // namespace

PipeOutput::PipeOutput(Context& context, int fd, std::string name, uint64_t length, NodePtr held)
    : Node(context, *context.registry().find("file")), fd_(fd), held_(std::move(held)) {
  set_filename(std::move(name));
  set_length(held_ ? std::max(length, held_->length()) : length);
  set_read_only(false);
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) throw Error::system(errno, filename());
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    // An open file of our own: the flags of this one are not those of others that share it.
    const std::string path = "/proc/self/fd/" + std::to_string(fd_);
    if (S_ISFIFO(status.st_mode))
      unblocked_ = OwnFd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    in_pieces_ = !unblocked_;
  }
}

void PipeOutput::check_reader() const {
  pollfd state{.fd = fd_, .events = 0, .revents = 0};
  if (::poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0)
    throw send_error(filename(), EPIPE);
}

void PipeOutput::send(ByteSpan bytes) {
  const int fd = unblocked_ ? unblocked_.get() : fd_;
  while (!bytes.empty()) {
    if (context().cancel != nullptr) context().cancel->check();
    if (abandoned_) throw Error(ErrorKind::kCancelled, filename() + ": the work has failed");
    if (in_pieces_) {
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      if (::poll(&ready, 1, kSendWait) == 0) continue;
    }
    const size_t most = in_pieces_ ? PIPE_BUF : kSendBytes;
    const ssize_t wrote = ::write(fd, bytes.data(), std::min(bytes.size(), most));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) {
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      ::poll(&ready, 1, kSendWait);
      continue;
    }
    if (wrote < 0) throw send_error(filename(), errno);
    bytes = bytes.subspan(static_cast<size_t>(wrote));
    sent_ += static_cast<uint64_t>(wrote);
  }
}

Task<void> PipeOutput::send_until(uint64_t offset) {
  if (offset <= sent_) co_return;
  AlignedBuffer buffer(std::min<uint64_t>(kSendBytes, offset - sent_));
  const uint64_t held = held_ ? held_->length() : 0;
  bool zero = false;
  while (sent_ < offset) {
    const bool from_held = sent_ < held;
    const uint64_t end = from_held ? std::min(offset, held) : offset;
    const MutableByteSpan part =
        buffer.span().first(std::min<uint64_t>(buffer.size(), end - sent_));
    if (from_held)
      co_await held_->read(sent_, part);
    else if (!zero)
      std::fill(buffer.span().begin(), buffer.span().end(), std::byte{0});
    zero = !from_held;
    co_await run_blocking([&] { send(part); });
  }
}

Task<void> PipeOutput::finish() {
  while (sent_ < length()) {
    co_await send_until(std::min(length(), sent_ + kReportedBytes));
    report_work(context(), "send", sent_, length());
  }
}

Task<void> PipeOutput::send_at(uint64_t offset, ByteSpan bytes) {
  if (offset < sent_)
    throw Error(ErrorKind::kIo, filename() + ": byte " + std::to_string(offset) +
                                    " would have to be written after byte " +
                                    std::to_string(sent_) + " was sent");
  co_await send_until(offset);
  co_await run_blocking([&] { send(bytes); });
  if (sent_ > length()) set_length(sent_);
}

// Nothing was sent yet, and the range is before what will be appended.
bool PipeOutput::keeps(uint64_t offset, uint64_t length) const {
  return held_ && sent_ == 0 && offset + length <= held_->length();
}

Task<void> PipeOutput::do_read(uint64_t offset, MutableByteSpan out) {
  if (keeps(offset, out.size())) return held_->read(offset, out);
  throw Error(ErrorKind::kIo, filename() + " cannot be read");
}

Task<void> PipeOutput::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  if (keeps(offset, in.size())) return held_->write(offset, in, flags);
  return send_at(offset, in);
}

Task<void> PipeOutput::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (keeps(offset, length)) return held_->write_zeroes(offset, length, flags);
  return send_until(offset + length);
}

Task<void> PipeOutput::do_resize(ResizeRequest request) {
  if (request.length < sent_)
    throw Error(ErrorKind::kUnsupported, filename() + " cannot be cut after it was sent");
  if (sent_ == 0 && held_) co_await held_->resize(request);
  set_length(request.length);
}

}  // namespace cairn
