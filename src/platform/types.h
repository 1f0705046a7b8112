#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

// Types, flags of open() and error numbers that POSIX has and some systems lack. A flag that is 0
// asks for what the system does anyway, or cannot do.
#ifdef _WIN32
struct iovec {
  void* iov_base;
  size_t iov_len;
};
using socklen_t = int;
constexpr int O_CLOEXEC = 0;  // nothing is inherited
constexpr int O_NONBLOCK = 0;
constexpr int O_NOCTTY = 0;
constexpr int O_NOFOLLOW = 0x01000000;
constexpr int O_DIRECTORY = 0x02000000;
constexpr int O_DIRECT = 0x04000000;
constexpr int O_PATH = 0x08000000;
constexpr int EDQUOT = 1001;
constexpr int ENOMEDIUM = 1002;
constexpr int ESHUTDOWN = 1003;
constexpr int EREMOTEIO = 1004;
constexpr int ESTALE = 1005;
#else
#include <sys/uio.h>
#ifdef __APPLE__
constexpr int O_DIRECT = 0x02000000;  // platform::open() knows it alone
constexpr int O_PATH = 0;             // to look at a directory it must be readable
constexpr int ENOMEDIUM = 1002;
constexpr int EREMOTEIO = 1004;
#endif
#endif
