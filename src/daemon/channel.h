#pragma once

#include <string>
#include <string_view>

#include "async/task.h"
#include "net/socket.h"

namespace cairn::daemon {

// A connection to a client: a socket, or a pair of descriptors such as a terminal. Belongs to one
// worker; one coroutine reads while another one writes.
class Channel {
 public:
  explicit Channel(Socket socket);
  // Reads from INPUT and writes to OUTPUT, which stay open when the channel goes.
  Channel(int input, int output);
  Channel(const Channel&) = delete;

  // What has come, at least a byte; empty at the end, and after abort().
  Task<std::string> read();
  // False when the client has gone, or after abort().
  Task<bool> write(std::string text);
  // Who reads finds the end. On the worker of the channel.
  void stop_reading();
  // Wakes who reads and writes. On the worker of the channel.
  void abort();

 private:
  Socket socket_;
  int input_, output_;
  bool aborted_ = false;
  bool read_enough_ = false;
};

}  // namespace cairn::daemon
