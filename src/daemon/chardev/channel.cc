#include "daemon/chardev/channel.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn::daemon {
namespace {

constexpr size_t kReadBytes = 16384;
// A terminal or pipe that is ready takes so much without blocking.
constexpr size_t kWriteBytes = 4096;

bool again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

Task<std::string> DescriptorChannel::read() {
  std::string bytes(kReadBytes, '\0');
  while (!aborted_ && !read_enough_) {
    co_await await_ready(input_, POLLIN);
    if (aborted_ || read_enough_) break;
    const ssize_t got = ::read(input_, bytes.data(), bytes.size());
    if (got < 0 && again(errno)) continue;
    bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    co_return bytes;
  }
  co_return std::string();
}

Task<bool> DescriptorChannel::write(std::string text) {
  size_t done = 0;
  while (done < text.size() && !aborted_) {
    co_await await_ready(output_, POLLOUT);
    if (aborted_) break;
    const size_t length = std::min(text.size() - done, kWriteBytes);
    const ssize_t put = ::write(output_, text.data() + done, length);
    if (put < 0 && again(errno)) continue;
    if (put < 0) co_return false;
    done += static_cast<size_t>(put);
  }
  co_return done == text.size();
}

void DescriptorChannel::stop_reading() {
  read_enough_ = true;
  wake_waits(input_);
}

void DescriptorChannel::abort() {
  aborted_ = true;
  wake_waits(input_);
  if (output_ != input_) wake_waits(output_);
}

Task<std::string> SocketChannel::read() {
  std::string bytes(kReadBytes, '\0');
  const MutableByteSpan out(reinterpret_cast<std::byte*>(bytes.data()), bytes.size());
  size_t got = 0;
  try {
    got = co_await stream_->read_some(out);
  } catch (const Error&) {
    // Who broke the connection off has gone.
  }
  bytes.resize(got);
  co_return bytes;
}

Task<bool> SocketChannel::write(std::string text) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(text.data()), text.size());
  try {
    co_await stream_->write_all(bytes);
    co_return true;
  } catch (const Error&) {
    co_return false;
  }
}

Task<std::string> SilentChannel::read() {
  while (true) {
    const uint64_t seen = changed_.count();
    if (aborted_) co_return std::string();
    co_await changed_.next(seen);
  }
}

Task<bool> SilentChannel::write(std::string text) {
  if (!aborted_) put(text);
  co_return !aborted_;
}

void SilentChannel::abort() {
  aborted_ = true;
  changed_.notify();
}

}  // namespace cairn::daemon
