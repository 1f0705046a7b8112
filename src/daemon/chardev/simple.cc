// Devices that are a buffer, a file, or the standard streams of the program.

#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "async/runtime.h"
#include "base/error.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

constexpr uint64_t kRingbufBytes = 65536;
constexpr uint64_t kMostRingbufBytes = uint64_t{1} << 30;
constexpr size_t kFileReadBytes = 16384;

class NullChannel : public SilentChannel {
 public:
  bool out_of_band() const override { return false; }

 protected:
  void put(std::string_view) override {}
};

class NullChardev : public Chardev {
 public:
  explicit NullChardev(std::string id) : Chardev(std::move(id)) {}
  std::string filename() const override { return "null"; }
  std::string_view type() const override { return "null"; }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    if (std::exchange(taken_, true)) co_return nullptr;
    co_return std::make_unique<NullChannel>();
  }

 private:
  bool taken_ = false;
};

class RingbufChannel : public SilentChannel {
 public:
  explicit RingbufChannel(Ringbuf& buffer) : buffer_(buffer) {}
  bool out_of_band() const override { return false; }

 protected:
  void put(std::string_view text) override { buffer_.write(text); }

 private:
  Ringbuf& buffer_;
};

// One client: who has the program's terminal.
class StdioChardev : public Chardev {
 public:
  // With SIGNALS, keys of the terminal end the program.
  StdioChardev(std::string id, StandardStreams streams, bool signals)
      : Chardev(std::move(id)), streams_(streams) {
    termios terminal{};
    if (::tcgetattr(streams_.input, &terminal) != 0) return;
    before_ = terminal;
    terminal.c_iflag &=
        ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    terminal.c_oflag |= OPOST;
    terminal.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals) terminal.c_lflag &= ~static_cast<tcflag_t>(ISIG);
    ::tcsetattr(streams_.input, TCSANOW, &terminal);
  }
  ~StdioChardev() override { restore(); }
  std::string filename() const override { return "stdio"; }
  std::string_view type() const override { return "stdio"; }
  void close() override { restore(); }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    if (std::exchange(taken_, true)) co_return nullptr;
    co_return std::make_unique<DescriptorChannel>(streams_.input, streams_.output);
  }

 private:
  void restore() {
    if (before_) ::tcsetattr(streams_.input, TCSANOW, &*before_);
    before_.reset();
  }
  StandardStreams streams_;
  std::optional<termios> before_;  // how the terminal was
  bool taken_ = false;
};

// Writes to a file; reads another one to its end, if there is one.
class FileChannel : public SilentChannel {
 public:
  FileChannel(std::shared_ptr<OpenFile> input, std::shared_ptr<OpenFile> output)
      : input_(std::move(input)), output_(std::move(output)) {
    struct stat status {};
    waits_ = input_ && (::fstat(input_->fd(), &status) != 0 || !S_ISREG(status.st_mode));
  }
  Task<std::string> read() override {
    while (input_ && !aborted()) {
      if (waits_) co_await await_ready(input_->fd(), POLLIN);
      if (aborted()) break;
      std::string bytes(kFileReadBytes, '\0');
      const ssize_t got = ::read(input_->fd(), bytes.data(), bytes.size());
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0) break;
      bytes.resize(static_cast<size_t>(got));
      co_return bytes;
    }
    input_ = nullptr;
    std::string nothing = co_await SilentChannel::read();
    co_return nothing;
  }
  void abort() override {
    SilentChannel::abort();
    if (input_) wake_waits(input_->fd());
  }

 protected:
  void put(std::string_view text) override {
    while (!text.empty()) {
      const ssize_t put = ::write(output_->fd(), text.data(), text.size());
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return;
      text.remove_prefix(static_cast<size_t>(put));
    }
  }

 private:
  std::shared_ptr<OpenFile> input_, output_;
  bool waits_ = false;  // the input is none that is always ready
};

class FileChardev : public Chardev {
 public:
  FileChardev(std::string id, std::shared_ptr<OpenFile> input, std::shared_ptr<OpenFile> output)
      : Chardev(std::move(id)), input_(std::move(input)), output_(std::move(output)) {}
  std::string filename() const override { return "file"; }
  std::string_view type() const override { return "file"; }

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    if (!output_) co_return nullptr;
    co_return std::make_unique<FileChannel>(std::move(input_), std::exchange(output_, nullptr));
  }

 private:
  std::shared_ptr<OpenFile> input_, output_;
};

std::shared_ptr<OpenFile> open_file(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (fd < 0) throw Error::system(errno, "Could not open '" + path + "'");
  return std::make_shared<OpenFile>(fd);
}

}  // namespace

std::unique_ptr<Chardev> make_null_chardev(std::string id) {
  return std::make_unique<NullChardev>(std::move(id));
}

std::unique_ptr<Chardev> make_stdio_chardev(std::string id, StandardStreams streams,
                                            const Value& data) {
  return std::make_unique<StdioChardev>(std::move(id), streams, flag_of(data, "signal", true));
}

std::unique_ptr<Chardev> make_ringbuf_chardev(std::string id, std::string type, const Value& data) {
  const auto given = static_cast<uint64_t>(number_of(data, "size", 0));
  const uint64_t bytes = given == 0 ? kRingbufBytes : given;
  if ((bytes & (bytes - 1)) != 0) invalid("size of ringbuf chardev must be power of two");
  if (bytes > kMostRingbufBytes)
    invalid("size of ringbuf chardev must be at most " + std::to_string(kMostRingbufBytes));
  return std::make_unique<Ringbuf>(std::move(id), std::move(type), bytes);
}

std::unique_ptr<Chardev> make_file_chardev(std::string id, const Value& data) {
  const std::string input = text_of(data, "in");
  const int flags = O_WRONLY | O_CREAT | (flag_of(data, "append", false) ? O_APPEND : O_TRUNC);
  std::shared_ptr<OpenFile> output = open_file(text_of(data, "out"), flags);
  std::shared_ptr<OpenFile> in;
  if (!input.empty()) in = open_file(input, O_RDONLY | O_NONBLOCK);
  return std::make_unique<FileChardev>(std::move(id), std::move(in), std::move(output));
}

Task<std::unique_ptr<Channel>> Ringbuf::accept() {
  if (std::exchange(taken_, true)) co_return nullptr;
  co_return std::make_unique<RingbufChannel>(*this);
}

void Ringbuf::write(std::string_view bytes) {
  held_.append(bytes.substr(bytes.size() - std::min(bytes.size(), most_)));
  if (held_.size() > most_) held_.erase(0, held_.size() - most_);
}

std::string Ringbuf::take(size_t most) {
  std::string taken = held_.substr(0, most);
  held_.erase(0, taken.size());
  return taken;
}

}  // namespace cairn::daemon
