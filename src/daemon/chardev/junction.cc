#include "daemon/chardev/junction.h"

#include <fmt/core.h>

#include <utility>

#include "base/error.h"

namespace cairn::daemon {
namespace {

constexpr char kEscape = '\x01';
constexpr std::string_view kHelp =
    "\n\rC-a h    print this help\n\r"
    "C-a x    exit emulator\n\r"
    "C-a s    save disk data back to file (if -snapshot)\n\r"
    "C-a t    toggle console timestamps\n\r"
    "C-a b    send break (magic sysrq)\n\r"
    "C-a c    switch between console and monitor\n\r"
    "C-a C-a  sends C-a\n\r";

}  // namespace

// What one monitor has of a junction while clients are there.
class Junction::PortChannel : public Channel {
 public:
  PortChannel(Junction& junction, Port& port) : junction_(junction), port_(port) {}
  ~PortChannel() override;

  Task<std::string> read() override {
    while (true) {
      const uint64_t seen = changed_.count();
      if (!input_.empty() && !over_) co_return std::exchange(input_, {});
      if (over_) co_return std::string();
      co_await changed_.next(seen);
    }
  }
  Task<bool> write(std::string text) override {
    if (ended_) co_return false;
    writing_ = true;
    const bool sent = co_await junction_.put(std::move(text));
    writing_ = false;
    co_return sent;
  }
  void stop_reading() override {
    over_ = true;
    changed_.notify();
  }
  void abort() override {
    stop_reading();
    if (std::exchange(ended_, true)) return;
    // Other monitors may have something to say yet.
    if (writing_ || junction_.silent()) junction_.abort();
  }
  bool ended() const { return ended_; }

  void type_in(std::string_view text) {
    input_ += text;
    changed_.notify();
  }
  // The clients have left.
  void end() {
    ended_ = true;
    stop_reading();
  }

 private:
  Junction& junction_;
  Port& port_;
  Signal changed_;
  std::string input_;
  bool over_ = false;   // for who reads
  bool ended_ = false;  // the clients are not there any more
  bool writing_ = false;
};

// The place of one monitor.
class Junction::Port : public Chardev {
 public:
  explicit Port(Junction& junction) : Chardev(junction.id()), junction_(junction) {}
  std::string filename() const override { return junction_.filename(); }
  std::string_view type() const override { return junction_.type(); }
  PortChannel* channel = nullptr;  // null: the monitor has no client

 protected:
  Task<std::unique_ptr<Channel>> accept() override {
    while (true) {
      const uint64_t seen = junction_.changed_.count();
      if (junction_.closed_) co_return nullptr;
      if (junction_.present_ != 0 && served_ != junction_.session_) break;
      co_await junction_.changed_.next(seen);
    }
    served_ = junction_.session_;
    auto made = std::make_unique<PortChannel>(junction_, *this);
    channel = made.get();
    co_return made;
  }

 private:
  Junction& junction_;
  uint64_t served_ = 0;  // session
};

Junction::PortChannel::~PortChannel() {
  if (port_.channel == this) port_.channel = nullptr;
}

Junction::Junction(std::string id, std::string_view type, std::vector<Chardev*> parts,
                   TaskGroup& pumps, CancelSource* quit)
    : Chardev(std::move(id)), type_(type), pumps_(pumps), quit_(quit) {
  for (Chardev* device : parts) {
    device->set_claimed(true);
    parts_.push_back({.device = device, .channel = nullptr});
  }
}

// Monitors have ports; the junction itself has no clients.
Task<std::unique_ptr<Channel>> Junction::accept() { co_return nullptr; }

Chardev& Junction::attach() {
  if (claimed() || (ports_.size() == 1 && quit_ == nullptr))
    invalid("chardev '" + id() + "' is already in use");
  if (ports_.size() == kMost)
    invalid(fmt::format("too many uses of multiplexed chardev '{}' (maximum is {})", id(), kMost));
  ports_.push_back(std::make_unique<Port>(*this));
  focus_ = ports_.size() - 1;
  if (!used())
    for (Part& part : parts_) {
      // A part may be a junction as well: what serves is its port.
      part.device->set_claimed(false);
      part.device = &part.device->attach();
      pumps_.spawn(pump(part));
    }
  set_used(true);
  return *ports_.back();
}

void Junction::close() {
  if (std::exchange(closed_, true)) return;
  for (const Part& part : parts_) part.device->set_claimed(false);
  changed_.notify();
}

bool Junction::silent() const {
  for (const auto& port : ports_)
    if (port->channel != nullptr && !port->channel->ended()) return false;
  return true;
}

void Junction::abort() {
  for (const Part& part : parts_)
    if (part.channel) part.channel->abort();
}

Task<void> Junction::pump(Part& part) {
  while (true) {
    std::unique_ptr<Channel> next = co_await part.device->next_client();
    if (!next) break;
    const std::shared_ptr<Channel> channel = std::move(next);
    part.channel = channel;
    came();
    while (true) {
      std::string bytes = co_await channel->read();
      if (bytes.empty()) break;
      co_await feed(std::move(bytes));
    }
    // Who still writes to it is woken.
    channel->abort();
    part.channel = nullptr;
    left();
  }
}

void Junction::came() {
  if (++present_ > 1) return;
  ++session_;
  changed_.notify();
}

void Junction::left() {
  if (--present_ != 0) return;
  for (const auto& port : ports_)
    if (port->channel != nullptr) port->channel->end();
}

void Junction::type_in(std::string text) {
  PortChannel* channel = ports_[focus_]->channel;
  if (channel != nullptr && !text.empty()) channel->type_in(text);
}

Task<void> Junction::feed(std::string bytes) {
  std::string text;
  for (const char c : bytes) {
    if (quit_ == nullptr) {
      text.push_back(c);
    } else if (std::exchange(escaped_, false)) {
      co_await escape(c, text);
    } else if (c == kEscape) {
      escaped_ = true;
    } else {
      text.push_back(c);
    }
  }
  type_in(std::move(text));
}

// TEXT was typed before it.
Task<void> Junction::escape(char letter, std::string& text) {
  switch (letter) {
    case kEscape:
      text.push_back(kEscape);
      break;
    case 'h':
    case '?':
      co_await put(std::string(kHelp));
      break;
    case 'x':
      co_await put("QEMU: Terminated\n\r");
      quit_->request();
      break;
    case 't':
      stamps_ = !stamps_;
      line_begins_ = false;
      first_stamp_ = {};
      break;
    case 'c':
      type_in(std::exchange(text, {}));
      focus_ = (focus_ + 1) % ports_.size();
      break;
    default:
      break;
  }
}

std::string Junction::stamped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (line_begins_) {
      const auto now = std::chrono::steady_clock::now();
      if (first_stamp_ == std::chrono::steady_clock::time_point()) first_stamp_ = now;
      const auto past = std::chrono::duration_cast<std::chrono::milliseconds>(now - first_stamp_);
      const int64_t ms = past.count();
      out += fmt::format("[{:02}:{:02}:{:02}.{:03}] ", ms / 3600000, ms / 60000 % 60,
                         ms / 1000 % 60, ms % 1000);
      line_begins_ = false;
    }
    out.push_back(c);
    if (c == '\n') line_begins_ = true;
  }
  return out;
}

Task<bool> Junction::put(std::string text) {
  const auto turn = co_await turn_.lock();
  if (stamps_) text = stamped(text);
  bool sent = false;
  for (size_t at = 0; at < parts_.size(); ++at) {
    const std::shared_ptr<Channel> channel = parts_[at].channel;
    if (!channel) continue;
    const bool taken = co_await channel->write(text);
    sent = sent || taken;
  }
  co_return sent;
}

std::unique_ptr<Chardev> make_mux_chardev(std::string id, Chardev& base, TaskGroup& pumps,
                                          CancelSource& quit) {
  if (base.busy()) invalid("chardev '" + base.id() + "' is already in use");
  return std::make_unique<Junction>(std::move(id), "mux", std::vector<Chardev*>{&base}, pumps,
                                    &quit);
}

std::unique_ptr<Chardev> make_hub_chardev(std::string id, std::vector<Chardev*> parts,
                                          TaskGroup& pumps) {
  if (parts.empty()) invalid("hub: 'chardevs' list is not defined");
  if (parts.size() > Junction::kMost)
    invalid(
        fmt::format("hub: too many uses of chardevs '{}' (maximum is {})", id, Junction::kMost));
  for (size_t at = 0; at < parts.size(); ++at) {
    if (parts[at]->joins())
      invalid("hub: multiplexers and hub devices can't be stacked, check chardev '" +
              parts[at]->id() + "', chardev should not be a hub device or have 'mux=on' enabled");
    for (size_t before = 0; before < at; ++before)
      if (parts[before] == parts[at])
        invalid("chardev '" + parts[at]->id() + "' is already in use");
    if (parts[at]->busy()) invalid("chardev '" + parts[at]->id() + "' is already in use");
  }
  return std::make_unique<Junction>(std::move(id), "hub", std::move(parts), pumps, nullptr);
}

}  // namespace cairn::daemon
