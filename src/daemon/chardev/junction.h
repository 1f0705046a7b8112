#pragma once

#include <array>
#include <chrono>

#include "async/signal.h"
#include "async/sync.h"
#include "daemon/chardev/chardev.h"

namespace cairn::daemon {

// Joins devices and their users: "mux", a device with several monitors, of which one at a time gets
// what the client types, and "hub", several devices with one monitor. What a monitor says goes to
// all clients that are there.
class Junction : public Chardev {
 public:
  // Parts and users that there may be.
  static constexpr size_t kMost = 4;
  // PARTS have no other user, and outlive it. PUMPS run what reads from them. With QUIT, Ctrl-A and
  // a letter are commands, one of which requests it.
  Junction(std::string id, std::string_view type, std::vector<Chardev*> parts, TaskGroup& pumps,
           CancelSource* quit);

  std::string filename() const override { return std::string(type_); }
  std::string_view type() const override { return type_; }
  bool joins() const override { return true; }
  Chardev& attach() override;
  void close() override;
  // Lets the clients of all parts go.
  void abort();

 private:
  class Port;
  class PortChannel;
  struct Part {
    Chardev* device;
    std::shared_ptr<Channel> channel;  // null: nobody is there
  };
  Task<std::unique_ptr<Channel>> accept() override;
  Task<void> pump(Part& part);
  void came();
  void left();
  Task<void> feed(std::string bytes);
  Task<void> escape(char letter, std::string& text);
  Task<bool> put(std::string text);
  // No monitor uses the clients that are there.
  bool silent() const;
  std::string stamped(std::string_view text);
  void type_in(std::string text);

  std::string_view type_;
  std::vector<Part> parts_;
  TaskGroup& pumps_;
  CancelSource* quit_;
  std::vector<std::unique_ptr<Port>> ports_;
  size_t focus_ = 0;      // the port that gets what is typed
  bool escaped_ = false;  // Ctrl-A was the last byte
  Mutex turn_;            // of who writes
  Signal changed_;        // a session began, or the end
  uint64_t session_ = 0;
  size_t present_ = 0;  // clients
  bool closed_ = false;
  bool stamps_ = false;  // lines begin with the time
  bool line_begins_ = false;
  std::chrono::steady_clock::time_point first_stamp_{};
};

// Throw kInvalid where a part cannot be one.
std::unique_ptr<Chardev> make_mux_chardev(std::string id, Chardev& base, TaskGroup& pumps,
                                          CancelSource& quit);
std::unique_ptr<Chardev> make_hub_chardev(std::string id, std::vector<Chardev*> parts,
                                          TaskGroup& pumps);

}  // namespace cairn::daemon
