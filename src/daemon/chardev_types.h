#pragma once

#include "daemon/chardev.h"

namespace cairn::daemon {

// One maker for each kind of device; DATA is checked.
std::unique_ptr<Chardev> make_null_chardev(std::string id);
std::unique_ptr<Chardev> make_stdio_chardev(std::string id, int input, int output);
std::unique_ptr<Chardev> make_ringbuf_chardev(std::string id, const Value& data);
std::unique_ptr<Chardev> make_file_chardev(std::string id, const Value& data);
// Listens or connects.
Task<std::unique_ptr<Chardev>> make_socket_chardev(std::string id, Value data,
                                                   ListeningSockets& sockets);

// The latest bytes that were written to a "ringbuf" device.
class Ringbuf : public Chardev {
 public:
  Ringbuf(std::string id, size_t bytes) : Chardev(std::move(id)), most_(bytes) {}
  std::string filename() const override { return "ringbuf"; }
  std::string_view type() const override { return "ringbuf"; }
  void write(std::string_view bytes);
  // Takes out the oldest bytes, at most MOST.
  std::string take(size_t most);

 private:
  size_t most_;
  std::string held_;
};

// What {type, data} of an address means. Throws kInvalid.
SocketAddress legacy_address(const Value& address);

}  // namespace cairn::daemon
