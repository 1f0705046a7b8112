#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/cancel.h"
#include "async/task_group.h"
#include "base/value.h"
#include "block/context.h"
#include "daemon/chardev/channel.h"
#include "daemon/listening_sockets.h"

namespace cairn::daemon {

// A descriptor that is closed with its last user.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  OpenFile(const OpenFile&) = delete;
  ~OpenFile();
  int fd() const { return fd_; }

 private:
  int fd_;
};

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

  // The next client; null once close() was called, or when there will be no other one. What is
  // written to it goes to the file of set_log() as well.
  Task<std::unique_ptr<Channel>> next_client();
  // What is waited for before the program continues: the first client, where the device says so.
  // Ends when CANCEL is requested.
  virtual Task<void> start(CancelSource& cancel);
  // Wakes next_client() and removes what it listens on.
  virtual void close() {}
  // With ON no further client is taken: those that connect wait, until the call without it.
  virtual void hold(bool) {}
  // The name of the terminal that was made for it; empty: none.
  virtual std::string terminal() const { return {}; }
  // It joins other devices or their users, and cannot be a part of a hub.
  virtual bool joins() const { return false; }

  // For a monitor: the device whose clients it serves, until the end. Throws kInvalid when all
  // places are taken.
  virtual Chardev& attach();
  // A monitor has it.
  bool used() const { return used_; }
  void set_used(bool used) { used_ = used; }
  // It is a part of another device.
  bool claimed() const { return claimed_; }
  void set_claimed(bool claimed) { claimed_ = claimed; }
  // It cannot be removed.
  bool busy() const { return used_ || claimed_; }
  // A client is there.
  bool open() const { return open_; }
  void set_open(bool open) { open_ = open; }
  // With which it was made.
  const Value& backend() const { return backend_; }
  void set_log(std::shared_ptr<OpenFile> log) { log_ = std::move(log); }

 protected:
  explicit Chardev(std::string id) : id_(std::move(id)) {}
  // As next_client(), without the file.
  virtual Task<std::unique_ptr<Channel>> accept();

 private:
  friend class Chardevs;
  std::string id_;
  Value backend_;
  std::shared_ptr<OpenFile> log_;
  bool used_ = false;
  bool claimed_ = false;
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
  Chardevs(Context& context, StandardStreams streams, ListeningSockets& sockets)
      : context_(context), streams_(streams), sockets_(sockets) {}

  // Makes a device; BACKEND is a checked {type, data} of chardev-add. Throws kInvalid, or what the
  // system says.
  Task<void> add(std::string id, Value backend, CancelSource& cancel);
  // Throws kInvalid when there is none, or it is in use.
  void remove(std::string_view id);
  // Null when there is none.
  Chardev* find(std::string_view id) const;
  const std::vector<std::unique_ptr<Chardev>>& all() const { return all_; }
  void close_all();
  // After close_all(), when no monitor is left: ends what devices do by themselves.
  Task<void> join();
  // As Chardev::hold(), of all.
  void hold(bool on);

 private:
  Task<std::unique_ptr<Chardev>> make(const std::string& id, const std::string& type, Value data,
                                      CancelSource& cancel);
  Chardev& part(const std::string& id, const std::string& missing);
  Context& context_;
  StandardStreams streams_;
  ListeningSockets& sockets_;
  TaskGroup pumps_;  // of devices that join others
  bool stdio_taken_ = false;
  std::vector<std::unique_ptr<Chardev>> all_;
};

// What the text of --chardev means: a device, after the one that it shares with others (mux=on).
struct ChardevLine {
  std::string id;
  Value backend;  // {type, data} of chardev-add
};
// Throws kInvalid.
std::vector<ChardevLine> parse_chardev(std::string_view text);
// The id of the device that the device ID of mux=on shares.
std::string shared_id(std::string_view id);

// The types that can be made, as --chardev help and query-chardev-backends list them.
const std::vector<std::string_view>& chardev_backends();

}  // namespace cairn::daemon
