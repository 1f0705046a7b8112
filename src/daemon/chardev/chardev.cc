#include "daemon/chardev/chardev.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "daemon/chardev/junction.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

[[noreturn]] void no_such(std::string_view id) {
  invalid("Chardev '" + std::string(id) + "' not found");
}

[[noreturn]] void no_driver(const std::string& type) {
  invalid("'" + type + "' is not a valid char driver name");
}

// Writes what a client gets to a file, too.
class LogChannel : public FilterChannel {
 public:
  LogChannel(std::unique_ptr<Channel> below, std::shared_ptr<OpenFile> log)
      : FilterChannel(std::move(below)), log_(std::move(log)) {}
  Task<bool> write(std::string text) override {
    // A log that cannot be written takes nothing away from the client.
    [[maybe_unused]] const ssize_t put = ::write(log_->fd(), text.data(), text.size());
    return FilterChannel::write(std::move(text));
  }

 private:
  std::shared_ptr<OpenFile> log_;
};

std::shared_ptr<OpenFile> open_log(const Value& data) {
  const std::string path = text_of(data, "logfile");
  if (path.empty()) return nullptr;
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK |
                    (flag_of(data, "logappend", false) ? O_APPEND : O_TRUNC);
  const int fd = ::open(path.c_str(), flags, 0666);
  if (fd < 0) throw Error::system(errno, "Could not create '" + path + "'");
  return std::make_shared<OpenFile>(fd);
}

}  // namespace

OpenFile::~OpenFile() { ::close(fd_); }

Task<std::unique_ptr<Channel>> Chardev::accept() { co_return nullptr; }

Task<std::unique_ptr<Channel>> Chardev::next_client() {
  std::unique_ptr<Channel> channel = co_await accept();
  if (channel && log_) channel = std::make_unique<LogChannel>(std::move(channel), log_);
  co_return channel;
}

Task<void> Chardev::start(CancelSource&) { co_return; }

Chardev& Chardev::attach() {
  if (busy()) invalid("chardev '" + id_ + "' is already in use");
  used_ = true;
  return *this;
}

const std::vector<std::string_view>& chardev_backends() {
  static const std::vector<std::string_view> names = {
      "pty",  "file",     "udp",  "memory", "stdio",  "socket", "ringbuf",
      "null", "parallel", "pipe", "mux",    "serial", "hub"};
  return names;
}

Chardev* Chardevs::find(std::string_view id) const {
  for (const auto& one : all_)
    if (one->id() == id) return one.get();
  return nullptr;
}

// The device ID, of which another one becomes the user. MISSING: what is said when there is none.
Chardev& Chardevs::part(const std::string& id, const std::string& missing) {
  Chardev* device = find(id);
  if (device == nullptr) invalid(missing);
  return *device;
}

Task<std::unique_ptr<Chardev>> Chardevs::make(const std::string& id, const std::string& type,
                                              Value data, CancelSource& cancel) {
  if (type == "null") co_return make_null_chardev(id);
  if (type == "ringbuf" || type == "memory") co_return make_ringbuf_chardev(id, type, data);
  if (type == "file") co_return make_file_chardev(id, data);
  if (type == "pipe") co_return make_pipe_chardev(id, data);
  if (type == "serial") co_return make_serial_chardev(id, data);
  if (type == "parallel") co_return make_parallel_chardev(id, data);
  if (type == "pty") co_return make_pty_chardev(id, data);
  if (type == "stdio") {
    if (stdio_taken_) invalid("cannot use stdio by multiple character devices");
    if (streams_.input < 0) invalid("cannot use stdio with -daemonize");
    stdio_taken_ = true;
    co_return make_stdio_chardev(id, streams_, data);
  }
  if (type == "socket") {
    std::unique_ptr<Chardev> made = co_await make_socket_chardev(id, data, context_, sockets_);
    co_return made;
  }
  if (type == "udp") {
    std::unique_ptr<Chardev> made = co_await make_udp_chardev(id, data);
    co_return made;
  }
  if (type == "mux") {
    const std::string base = text_of(data, "chardev");
    Chardev& device = part(base, "mux: base chardev " + base + " not found");
    co_return make_mux_chardev(id, device, pumps_, cancel);
  }
  if (type == "hub") {
    std::vector<Chardev*> parts;
    for (const Value& one : *data.find("chardevs")->get_if<Value::Array>()) {
      const std::string name = one.scalar_text();
      parts.push_back(&part(name, "hub: chardev can't be found by id '" + name + "'"));
    }
    co_return make_hub_chardev(id, std::move(parts), pumps_);
  }
  no_driver(type);
}

Task<void> Chardevs::add(std::string id, Value backend, CancelSource& cancel) {
  if (find(id) != nullptr) invalid("Chardev with id '" + id + "' already exists");
  const std::string type = *backend.find("type")->get_if<std::string>();
  const auto& known = chardev_backends();
  if (std::find(known.begin(), known.end(), type) == known.end()) no_driver(type);
  const Value* given = backend.find("data");
  const Value data = given == nullptr ? Value::object() : *given;
  std::shared_ptr<OpenFile> log = open_log(data);
  std::unique_ptr<Chardev> made = co_await make(id, type, data, cancel);
  Chardev& device = *made;
  device.backend_ = std::move(backend);
  device.set_log(std::move(log));
  all_.push_back(std::move(made));
  co_await device.start(cancel);
}

void Chardevs::remove(std::string_view id) {
  const auto at =
      std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return one->id() == id; });
  if (at == all_.end()) no_such(id);
  if ((*at)->busy()) invalid("Chardev '" + std::string(id) + "' is busy");
  if ((*at)->type() == "stdio") stdio_taken_ = false;
  (*at)->close();
  all_.erase(at);
}

void Chardevs::hold(bool on) {
  for (const auto& one : all_) one->hold(on);
}

void Chardevs::close_all() {
  for (const auto& one : all_) one->close();
}

Task<void> Chardevs::join() {
  for (const auto& one : all_)
    if (auto* junction = dynamic_cast<Junction*>(one.get())) junction->abort();
  co_await pumps_.join();
}

}  // namespace cairn::daemon
