#pragma once

#include <span>

#ifdef _WIN32
// The values of Windows, whose own header brings far more.
constexpr short POLLIN = 0x0300;
constexpr short POLLOUT = 0x0010;
constexpr short POLLERR = 0x0001;
constexpr short POLLHUP = 0x0002;
struct pollfd {
  int fd;
  short events;
  short revents;
};
#else
#include <poll.h>
#endif

namespace cairn::platform {

// Waits until one of ENTRIES has one of its events, or TIMEOUT milliseconds have passed (-1: no
// end). How many have. On Windows sockets and wake-ups can be waited for, and nothing else.
int poll(std::span<pollfd> entries, int timeout);

}  // namespace cairn::platform
