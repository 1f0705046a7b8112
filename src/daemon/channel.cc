#include "daemon/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "async/runtime.h"

namespace cairn::daemon {
namespace {

constexpr size_t kReadBytes = 16384;
// A terminal or pipe that is ready takes so much without blocking.
constexpr size_t kWriteBytes = 4096;

bool again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

Channel::Channel(Socket socket)
    : socket_(std::move(socket)), input_(socket_.fd()), output_(socket_.fd()) {}

Channel::Channel(int input, int output) : input_(input), output_(output) {}

Task<std::string> Channel::read() {
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

Task<bool> Channel::write(std::string text) {
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

void Channel::stop_reading() {
  read_enough_ = true;
  wake_waits(input_);
}

void Channel::abort() {
  aborted_ = true;
  if (socket_) ::shutdown(socket_.fd(), SHUT_RDWR);
  wake_waits(input_);
  if (output_ != input_) wake_waits(output_);
}

}  // namespace cairn::daemon
