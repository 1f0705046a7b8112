#pragma once

#include <string>
#include <utility>
#include <vector>

#include "async/task.h"
#include "net/socket.h"

namespace cairn::daemon {

// Listening sockets that were opened for the program before it started, by name. They stay open for
// the program's whole life, so that a server that is stopped and started again finds them.
class InheritedSockets {
 public:
  // Several sockets may have one name.
  void add(std::string name, int descriptor);
  // Listens at ADDRESS. An address of the kind "fd" may have a name as its descriptor: all sockets
  // of that name are given then. Throws kInvalid where there is none or one does not listen, and
  // what listen_sockets() throws.
  Task<std::vector<Socket>> listen(SocketAddress address) const;

 private:
  std::vector<Socket> named(const std::string& name) const;
  std::vector<std::pair<std::string, int>> all_;
};

}  // namespace cairn::daemon
