#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/error.h"

namespace cairn {

// Cooperative cancellation: long work asks from time to time. request() may be called from any
// thread and from a signal handler.
class CancelSource {
 public:
  CancelSource() = default;
  CancelSource(const CancelSource&) = delete;
  ~CancelSource() {
    if (const int fd = descriptor_.load(); fd >= 0) ::close(fd);
  }
  void request() noexcept {
    const int before = errno;
    cancelled_.store(true);
    const uint64_t one = 1;
    // The counter can only refuse when it is already set.
    if (const int fd = descriptor_.load(); fd >= 0) [[maybe_unused]]
      const ssize_t written = ::write(fd, &one, sizeof one);
    errno = before;
  }
  bool requested() const noexcept { return cancelled_.load(std::memory_order_relaxed); }
  // Throws kCancelled when cancellation was requested.
  void check() const {
    if (requested()) throw Error(ErrorKind::kCancelled, "cancelled");
  }
  // For who waits rather than asks: readable once cancellation was requested. Made by the first
  // call, from any thread. Throws what the system says.
  int descriptor() {
    int fd = descriptor_.load();
    if (fd >= 0) return fd;
    const int made = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made < 0) throw Error::system(errno, "eventfd");
    if (!descriptor_.compare_exchange_strong(fd, made)) {
      ::close(made);
      return fd;
    }
    fd = made;
    if (requested()) request();
    return fd;
  }

 private:
  std::atomic<bool> cancelled_{false};
  std::atomic<int> descriptor_{-1};
};

}  // namespace cairn
