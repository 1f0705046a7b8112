#include "platform/wake.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace cairn::platform {

Wake::Wake() {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) return;
  for (const int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
  read_end_ = ends[0];
  write_end_ = ends[1];
}

Wake::~Wake() {
  if (read_end_ < 0) return;
  ::close(read_end_);
  ::close(write_end_);
}

void Wake::ring() const noexcept {
  const int before = errno;
  const char one = 1;
  // The pipe refuses when it is full: it was rung then.
  [[maybe_unused]] const ssize_t written = ::write(write_end_, &one, sizeof one);
  errno = before;
}

void Wake::clear() const noexcept {
  char rings[256];
  while (::read(read_end_, rings, sizeof rings) > 0) {
  }
}

}  // namespace cairn::platform
