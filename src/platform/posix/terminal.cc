#include "platform/terminal.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace cairn::platform {
namespace {

termios before = {};             // of the terminal that is silent
std::atomic<int> silent_fd{-1};  // set while BEFORE is not to change

}  // namespace

SilentTerminal::SilentTerminal() {
  fd_ = ::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (fd_ < 0 || ::tcgetattr(fd_, &before) != 0) return;
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  silent_fd.store(fd_);
  ready_ = ::tcsetattr(fd_, TCSAFLUSH, &silent) == 0;
}

SilentTerminal::~SilentTerminal() {
  if (ready_) ::tcsetattr(fd_, TCSAFLUSH, &before);
  silent_fd.store(-1);
  if (fd_ >= 0) ::close(fd_);
}

void SilentTerminal::say(std::string_view text) const {
  static_cast<void>(::write(fd_, text.data(), text.size()) < 0);
}

std::optional<std::string> SilentTerminal::read_line(size_t most,
                                                     const std::function<bool()>& stop) const {
  std::string line;
  line.reserve(most);
  while (line.size() < most) {
    char c = 0;
    const ssize_t got = ::read(fd_, &c, 1);
    if (got < 0 && errno == EINTR) {
      if (stop()) return std::nullopt;
      continue;
    }
    if (got <= 0 || c == '\n') break;
    line.push_back(c);
  }
  say("\n");
  return line;
}

void restore_terminal() noexcept {
  const int fd = silent_fd.load();
  if (fd < 0) return;
  // What is half typed is nobody's; a terminal that is stopped is not waited for.
  ::tcflush(fd, TCIFLUSH);
  ::tcsetattr(fd, TCSANOW, &before);
}

}  // namespace cairn::platform
