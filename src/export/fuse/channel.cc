#include "export/fuse/channel.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace cairn::fuse {
namespace {

// Requests of one channel at a time, which bounds the memory for their buffers.
constexpr unsigned kMostUnderWay = 64;
constexpr size_t kMostSpare = 8;

// The payload of a write is after two headers. Reading to this place puts it on a page.
constexpr size_t kRequestBegin =
    AlignedBuffer::kAlignment - sizeof(fuse_in_header) - sizeof(fuse_write_in);
constexpr size_t kBufferBytes = kMaxTransfer + 2 * AlignedBuffer::kAlignment;

thread_local Channel* current_channel = nullptr;

}  // namespace

Channel* Channel::current() { return current_channel; }

Channel::~Channel() {
  if (own_fd_) ::close(fd_);
}

void Channel::open(int main) {
  fd_ = main;
  if (worker_.resident_index() == 0u) return;
  const int clone = ::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (clone < 0) return;
  auto number = static_cast<uint32_t>(main);
  if (::ioctl(clone, FUSE_DEV_IOC_CLONE, &number) != 0) {
    ::close(clone);
    return;
  }
  fd_ = clone;
  own_fd_ = true;
}

unsigned Channel::drain(unsigned most) {
  unsigned count = 0;
  while (count < most && under_way_ < kMostUnderWay) {
    if (request_.size() == 0) request_ = take_buffer();
    std::byte* begin = request_.data() + kRequestBegin;
    const ssize_t got = ::read(fd_, begin, request_.size() - kRequestBegin);
    if (got < 0) {
      // ENOENT: the request was taken back before it was read.
      if (errno == EINTR || errno == ENOENT) continue;
      if (errno != EAGAIN) ended_ = true;
      break;
    }
    ++count;
    fuse_buf buffer = {};
    buffer.size = static_cast<size_t>(got);
    buffer.mem = begin;
    buffer.fd = -1;
    current_channel = this;
    library_.session_process_buf(session_, &buffer);
    current_channel = nullptr;
  }
  return count;
}

struct Channel::FewerAwaiter {
  Channel& channel;
  unsigned limit;
  bool await_ready() const noexcept { return channel.under_way_ < limit; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    channel.waiting_ = handle;
    channel.waiting_for_ = limit;
  }
  void await_resume() const noexcept {}
};

Task<void> Channel::wait_for_room() {
  FewerAwaiter awaiter{*this, kMostUnderWay};
  co_await awaiter;
}

Task<void> Channel::finish() {
  FewerAwaiter awaiter{*this, 1};
  co_await awaiter;
}

Task<void> Channel::wait_for_request() { co_await await_ready(fd_, POLLIN); }

void Channel::start(Task<void> work) {
  ++under_way_;
  spawn_detached(run(std::move(work)));
}

Task<void> Channel::run(Task<void> work) {
  co_await work;
  --under_way_;
  if (waiting_ && under_way_ < waiting_for_) worker_.post(std::exchange(waiting_, nullptr));
}

AlignedBuffer Channel::take_request() { return std::exchange(request_, AlignedBuffer()); }

AlignedBuffer Channel::take_buffer() {
  if (spare_.empty()) return AlignedBuffer(kBufferBytes);
  AlignedBuffer buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void Channel::give_back(AlignedBuffer buffer) {
  if (spare_.size() < kMostSpare) spare_.push_back(std::move(buffer));
}

}  // namespace cairn::fuse
