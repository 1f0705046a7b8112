#include "cli/nbd/background.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "operation/operation.h"

namespace cairn::cli {

Background::Role Background::begin() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error::system(errno, "Failed to create pipe");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw Error::system(errno, "Failed to fork");
  if (child != 0) {
    ::close(ends[1]);
    pipe_ = ends[0];
    return Role::kParent;
  }
  ::close(ends[0]);
  ::setsid();
  old_error_ = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[1]);
  return Role::kChild;
}

int Background::wait() {
  bool said = false;
  char buffer[4096];
  while (true) {
    const ssize_t got = ::read(pipe_, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    said = true;
    std::fwrite(buffer, 1, static_cast<size_t>(got), stderr);
  }
  ::close(std::exchange(pipe_, -1));
  return said ? 1 : 0;
}

void Background::ready(bool verbose) {
  if (old_error_ < 0) return;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) throw Error::system(errno, "/dev/null");
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(verbose ? old_error_ : null, STDERR_FILENO);
  ::close(null);
  ::close(std::exchange(old_error_, -1));
}

}  // namespace cairn::cli
