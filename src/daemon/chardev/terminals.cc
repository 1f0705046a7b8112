// Devices of the system: terminals that are made or opened, pipes, parallel ports.

#include <fcntl.h>
#include <linux/ppdev.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "async/runtime.h"
#include "base/error.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// Between two looks at whether somebody has opened a terminal.
constexpr auto kTerminalNap = 100ms;

int open_device(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) throw Error::system(errno, "Could not open '" + path + "'");
  return fd;
}

// One client, for ever: who has the other end of descriptors that stay open.
class DeviceChardev : public Chardev {
 public:
  DeviceChardev(std::string id, std::string_view type, int input, int output)
      : Chardev(std::move(id)), type_(type), input_(input), output_(output) {}
  std::string filename() const override { return std::string(type_); }
  std::string_view type() const override { return type_; }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    if (std::exchange(taken_, true)) co_return nullptr;
    co_return std::make_unique<DescriptorChannel>(input_.fd(), output_.fd());
  }

 private:
  std::string_view type_;
  OpenFile input_, output_;
  bool taken_ = false;
};

// It is claimed; no monitor can speak over it.
class ParallelChardev : public Chardev {
 public:
  ParallelChardev(std::string id, int fd) : Chardev(std::move(id)), port_(fd) {}
  ~ParallelChardev() override { ::ioctl(port_.fd(), PPRELEASE); }
  std::string filename() const override { return "parallel"; }
  std::string_view type() const override { return "parallel"; }

 private:
  OpenFile port_;
};

// A terminal that this program makes: its clients open the other side, one after the other.
class PtyChardev : public Chardev {
 public:
  PtyChardev(std::string id, int fd, std::string name, std::string link)
      : Chardev(std::move(id)), master_(fd), name_(std::move(name)), link_(std::move(link)) {}
  ~PtyChardev() override { close(); }
  std::string filename() const override { return "pty:" + name_; }
  std::string_view type() const override { return "pty"; }
  std::string terminal() const override { return name_; }
  void close() override {
    if (std::exchange(closed_, true)) return;
    std::array<char, 64> target{};
    // Not that of a device which came after this one.
    if (!link_.empty() && ::readlink(link_.c_str(), target.data(), target.size() - 1) > 0 &&
        name_ == target.data())
      ::unlink(link_.c_str());
  }
  void hold(bool on) override { held_ = on; }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    while (!closed_) {
      pollfd one{.fd = master_.fd(), .events = 0, .revents = 0};
      const bool alone = ::poll(&one, 1, 0) > 0 && (one.revents & POLLHUP) != 0;
      if (!alone && !held_)
        co_return std::make_unique<DescriptorChannel>(master_.fd(), master_.fd());
      co_await sleep_for(kTerminalNap);
    }
    co_return nullptr;
  }

 private:
  OpenFile master_;
  std::string name_, link_;
  bool closed_ = false;
  bool held_ = false;
};

// Bytes pass as they are, and the other side hangs up with its last user.
void prepare_terminal(int slave) {
  termios terminal{};
  ::tcgetattr(slave, &terminal);
  ::cfmakeraw(&terminal);
  ::tcsetattr(slave, TCSAFLUSH, &terminal);
}

}  // namespace

std::unique_ptr<Chardev> make_pipe_chardev(std::string id, const Value& data) {
  const std::string path = text_of(data, "device");
  // Both directions of each, so that an end without a peer is no end of the file.
  constexpr int kFlags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  int input = ::open((path + ".in").c_str(), kFlags);
  int output = ::open((path + ".out").c_str(), kFlags);
  if (input < 0 || output < 0) {
    if (input >= 0) ::close(input);
    if (output >= 0) ::close(output);
    input = open_device(path);
    output = ::fcntl(input, F_DUPFD_CLOEXEC, 0);
    if (output < 0) {
      const int error = errno;
      ::close(input);
      throw Error::system(error, "Could not open '" + path + "'");
    }
  }
  return std::make_unique<DeviceChardev>(std::move(id), "pipe", input, output);
}

std::unique_ptr<Chardev> make_serial_chardev(std::string id, const Value& data) {
  const std::string path = text_of(data, "device");
  const int input = open_device(path);
  const int output = ::fcntl(input, F_DUPFD_CLOEXEC, 0);
  if (output < 0) {
    const int error = errno;
    ::close(input);
    throw Error::system(error, "Could not open '" + path + "'");
  }
  termios line{};
  if (::tcgetattr(input, &line) == 0) {
    ::cfmakeraw(&line);
    ::cfsetispeed(&line, B115200);
    ::cfsetospeed(&line, B115200);
    line.c_cflag &= ~static_cast<tcflag_t>(PARENB | CSTOPB | CRTSCTS | HUPCL | CLOCAL);
    ::tcsetattr(input, TCSANOW, &line);
  }
  return std::make_unique<DeviceChardev>(std::move(id), "serial", input, output);
}

std::unique_ptr<Chardev> make_parallel_chardev(std::string id, const Value& data) {
  const int fd = open_device(text_of(data, "device"));
  if (::ioctl(fd, PPCLAIM) < 0) {
    const int error = errno;
    ::close(fd);
    throw Error::system(error, "not a parallel port");
  }
  return std::make_unique<ParallelChardev>(std::move(id), fd);
}

std::unique_ptr<Chardev> make_pty_chardev(std::string id, const Value& data) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) throw Error::system(errno, "Failed to create PTY");
  std::array<char, 64> name{};
  const bool named = ::grantpt(master) == 0 && ::unlockpt(master) == 0 &&
                     ::ptsname_r(master, name.data(), name.size()) == 0;
  const int slave = named ? ::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;
  if (slave < 0) {
    const int error = errno;
    ::close(master);
    throw Error::system(error, "Failed to create PTY");
  }
  prepare_terminal(slave);
  ::close(slave);
  ::fcntl(master, F_SETFL, O_NONBLOCK);
  const std::string link = text_of(data, "path");
  // Another process that this one succeeds had it.
  if (!link.empty() && flag_of(data, kReplacesLink, false)) ::unlink(link.c_str());
  if (!link.empty() && ::symlink(name.data(), link.c_str()) != 0) {
    const int error = errno;
    ::close(master);
    throw Error::system(error, "Failed to create PTY symlink");
  }
  return std::make_unique<PtyChardev>(std::move(id), master, name.data(), link);
}

}  // namespace cairn::daemon
