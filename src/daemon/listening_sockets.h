#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "async/task.h"
#include "net/socket.h"

namespace cairn::daemon {

// The sockets at which a daemon listens: those that were opened for it before it started, which
// have names and stay open for its whole life, and those that its servers opened, each under the
// name of its owner, so that they can be handed over to another process. On the daemon's worker.
class ListeningSockets {
 public:
  // One that was opened before; several may have one name.
  void add(std::string name, int descriptor);
  // One that the owner had in another process: listen() gives it instead of a new one.
  void take_over(const std::string& owner, Socket socket);
  // Listens at ADDRESS for OWNER, who has no others. An address of the kind "fd" may have a name as
  // its descriptor: all sockets of that name are given then. Throws kInvalid where there is none or
  // one does not listen, and what listen_sockets() throws.
  Task<std::vector<Socket>> listen(SocketAddress address, std::string owner);
  // OWNER listens no more: the file of its socket is removed.
  void end(const std::string& owner);

  // With ON, what ends keeps its sockets and files, and its owner gets them again from listen(): so
  // nobody who connects meanwhile is refused. The call without it closes what nobody got again.
  void keep(bool on);
  // Everything that is open, under names that are of two kinds: those of add(), and of owners.
  struct Open {
    bool of_owner = false;
    std::string name;
    int descriptor = -1;
  };
  std::vector<Open> all() const;

 private:
  struct Held {
    std::vector<Socket> copies;
    std::string path;  // of a Unix socket, which goes with its owner; empty: none
  };
  std::vector<Socket> named(const std::string& name) const;
  std::vector<std::pair<std::string, int>> named_;
  std::map<std::string, Held> owned_;                   // by owner
  std::map<std::string, std::vector<Socket>> waiting_;  // for their owners to listen again
  bool keeping_ = false;
};

}  // namespace cairn::daemon
