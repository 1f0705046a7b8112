#pragma once

#include "daemon/chardev/chardev.h"

namespace cairn::daemon {

// One maker for each kind of device; DATA is checked. They throw kInvalid and what the system says.
std::unique_ptr<Chardev> make_null_chardev(std::string id);
std::unique_ptr<Chardev> make_stdio_chardev(std::string id, StandardStreams streams,
                                            const Value& data);
// TYPE is one of its two names.
std::unique_ptr<Chardev> make_ringbuf_chardev(std::string id, std::string type, const Value& data);
std::unique_ptr<Chardev> make_file_chardev(std::string id, const Value& data);
std::unique_ptr<Chardev> make_pipe_chardev(std::string id, const Value& data);
std::unique_ptr<Chardev> make_serial_chardev(std::string id, const Value& data);
std::unique_ptr<Chardev> make_parallel_chardev(std::string id, const Value& data);
std::unique_ptr<Chardev> make_pty_chardev(std::string id, const Value& data);
// Listens or connects; finds TLS credentials in CONTEXT, which gets warnings.
Task<std::unique_ptr<Chardev>> make_socket_chardev(std::string id, Value data, Context& context,
                                                   ListeningSockets& sockets);
Task<std::unique_ptr<Chardev>> make_udp_chardev(std::string id, Value data);

// The latest bytes that were written to a "ringbuf" device.
class Ringbuf : public Chardev {
 public:
  Ringbuf(std::string id, std::string type, size_t bytes)
      : Chardev(std::move(id)), type_(std::move(type)), most_(bytes) {}
  std::string filename() const override { return type_; }
  std::string_view type() const override { return type_; }
  void write(std::string_view bytes);
  // Takes out the oldest bytes, at most MOST.
  std::string take(size_t most);

 protected:
  Task<std::unique_ptr<Channel>> accept() override;

 private:
  std::string type_;
  size_t most_;
  std::string held_;
  bool taken_ = false;  // by a monitor, whose client is the buffer
};

// Of the data of a "pty", when another process makes it again: its link is replaced.
inline constexpr std::string_view kReplacesLink = "replaces-link";

// What {type, data} of an address means. Throws kInvalid.
SocketAddress legacy_address(const Value& address);

}  // namespace cairn::daemon
