#pragma once

#include <span>

#ifdef _WIN32
// The values of Windows, whose own header brings far more.
#ifndef POLLIN
#define POLLIN 0x0300
#define POLLOUT 0x0010
#define POLLERR 0x0001
#define POLLHUP 0x0002
#endif
namespace cairn {
struct pollfd {
  int fd;
  short events;
  short revents;
};
}  // namespace cairn
#else
#include <poll.h>
#endif

namespace cairn::platform {

// Waits until one of ENTRIES has one of its events, or TIMEOUT milliseconds have passed (-1: no
// end). How many have. On Windows sockets and wake-ups can be waited for, and nothing else.
int poll(std::span<pollfd> entries, int timeout);

}  // namespace cairn::platform
