#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/cancel.h"
#include "base/value.h"
#include "daemon/channel.h"
#include "daemon/listening_sockets.h"

namespace cairn::daemon {

// A character device: where the clients of a monitor come from. Belongs to the worker of the
// daemon.
class Chardev {
 public:
  virtual ~Chardev() = default;

  const std::string& id() const { return id_; }
  // How query-chardev shows it.
  virtual std::string filename() const = 0;
  // The type without "chardev-", as in QOM.
  virtual std::string_view type() const = 0;

  // The next client; null once close() was called, or when there will be no other one.
  virtual Task<std::unique_ptr<Channel>> next_client();
  // What is waited for before the program continues: the first client, where the device says so.
  // Ends when CANCEL is requested.
  virtual Task<void> start(CancelSource& cancel);
  // Wakes next_client() and removes what it listens on.
  virtual void close() {}
  // With ON no further client is taken: those that connect wait, until the call without it.
  virtual void hold(bool) {}

  // A monitor or another user has it.
  bool used() const { return used_; }
  void set_used(bool used) { used_ = used; }
  // A client is there.
  bool open() const { return open_; }
  void set_open(bool open) { open_ = open; }
  // With which it was made.
  const Value& backend() const { return backend_; }

 protected:
  explicit Chardev(std::string id) : id_(std::move(id)) {}

 private:
  friend class Chardevs;
  std::string id_;
  Value backend_;
  bool used_ = false;
  bool open_ = false;
};

// The descriptors of a "stdio" device.
struct StandardStreams {
  int input = -1;
  int output = -1;
};

// The devices by id, in the order in which they were made.
class Chardevs {
 public:
  Chardevs(StandardStreams streams, ListeningSockets& sockets)
      : streams_(streams), sockets_(sockets) {}

  // Makes a device; BACKEND is a checked {type, data} of chardev-add. Throws kInvalid, or what the
  // system says.
  Task<void> add(std::string id, Value backend, CancelSource& cancel);
  // Throws kInvalid when there is none, or it is in use.
  void remove(std::string_view id);
  // Null when there is none.
  Chardev* find(std::string_view id) const;
  const std::vector<std::unique_ptr<Chardev>>& all() const { return all_; }
  void close_all();
  // As Chardev::hold(), of all.
  void hold(bool on);

 private:
  StandardStreams streams_;
  ListeningSockets& sockets_;
  bool stdio_taken_ = false;
  std::vector<std::unique_ptr<Chardev>> all_;
};

// The backend {type, data} that the text of --chardev means, with its id. Throws kInvalid.
struct ChardevLine {
  std::string id;
  Value backend;
};
ChardevLine parse_chardev(std::string_view text);

// The types that can be made, as --chardev help and query-chardev-backends list them.
const std::vector<std::string_view>& chardev_backends();

}  // namespace cairn::daemon
