#include "daemon/outbox.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn::daemon {

Outbox::Bell::Bell() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw Error::system(errno, "eventfd");
}

Outbox::Bell::~Bell() { ::close(fd_); }

void Outbox::Bell::ring() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

Task<void> Outbox::Bell::wait() {
  co_await await_ready(fd_, POLLIN);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);
}

void Outbox::post(std::string_view text) {
  {
    std::lock_guard lock(mutex_);
    if (over_) return;
    if (waiting_.size() + text.size() > kMost) {
      overflowed_ = over_ = true;
      waiting_.clear();
    } else {
      waiting_.append(text);
    }
  }
  filled_.ring();
}

Task<std::string> Outbox::take() {
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (!waiting_.empty()) {
        std::string all = std::exchange(waiting_, {});
        taken_.ring();
        co_return all;
      }
      if (over_) co_return std::string();
    }
    co_await filled_.wait();
  }
}

Task<void> Outbox::wait_for_room() {
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (over_ || waiting_.size() < kCrowded) co_return;
    }
    co_await taken_.wait();
  }
}

void Outbox::finish() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  filled_.ring();
  taken_.ring();
}

void Outbox::abandon() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
    waiting_.clear();
  }
  filled_.ring();
  taken_.ring();
}

bool Outbox::empty() const {
  std::lock_guard lock(mutex_);
  return waiting_.empty();
}

bool Outbox::overflowed() const {
  std::lock_guard lock(mutex_);
  return overflowed_;
}

}  // namespace cairn::daemon
