#include "cli/prompt.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

namespace cairn::cli {
namespace {

constexpr size_t kMostBytes = 4096;

// The terminal with its echo off until the object goes.
class SilentTerminal {
 public:
  SilentTerminal() {
    if (::isatty(STDERR_FILENO)) fd_ = ::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd_ < 0 || ::tcgetattr(fd_, &before_) != 0) return;
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ready_ = ::tcsetattr(fd_, TCSAFLUSH, &silent) == 0;
  }
  ~SilentTerminal() {
    if (ready_) ::tcsetattr(fd_, TCSAFLUSH, &before_);
    if (fd_ >= 0) ::close(fd_);
  }
  SilentTerminal(const SilentTerminal&) = delete;

  bool ready() const { return ready_; }
  void say(std::string_view text) const {
    static_cast<void>(::write(fd_, text.data(), text.size()) < 0);
  }
  std::string read_line(const CancelSource& cancel) const {
    std::string line;
    line.reserve(kMostBytes);
    while (line.size() < kMostBytes) {
      char c = 0;
      const ssize_t got = ::read(fd_, &c, 1);
      if (got < 0 && errno == EINTR) {
        cancel.check();
        continue;
      }
      if (got <= 0 || c == '\n') break;
      line.push_back(c);
    }
    say("\n");
    return line;
  }

 private:
  int fd_ = -1;
  termios before_ = {};
  bool ready_ = false;
};

}  // namespace

std::shared_ptr<const Secret> ask_passphrase(const CancelSource& cancel, const std::string& image,
                                             bool twice) {
  const SilentTerminal terminal;
  if (!terminal.ready()) return nullptr;
  terminal.say((twice ? "New passphrase for " : "Passphrase for ") + image + ": ");
  auto first = std::make_shared<Secret>(terminal.read_line(cancel));
  if (!twice) return first;
  terminal.say("Once more: ");
  const Secret second(terminal.read_line(cancel));
  if (first->bytes() != second.bytes())
    throw Error(ErrorKind::kInvalid, "The two passphrases are not the same");
  return first;
}

}  // namespace cairn::cli
