#include "platform/wake.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace cairn::platform {

Wake::Wake() : read_end_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), write_end_(read_end_) {}

Wake::~Wake() {
  if (read_end_ >= 0) ::close(read_end_);
}

void Wake::ring() const noexcept {
  const int before = errno;
  const uint64_t one = 1;
  // The counter can only refuse when it is already set.
  [[maybe_unused]] const ssize_t written = ::write(write_end_, &one, sizeof one);
  errno = before;
}

void Wake::clear() const noexcept {
  uint64_t rings = 0;
  [[maybe_unused]] const ssize_t got = ::read(read_end_, &rings, sizeof rings);
}

}  // namespace cairn::platform
