#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "async/runtime.h"

namespace cairn::daemon {

// The service manager that started the program, such as systemd, and gets notices of how it
// does: lines NAME=VALUE in a datagram to a socket.
class ServiceManager {
 public:
  // None: no notices are sent.
  ServiceManager() = default;
  // ADDRESS is the path of a socket, or '@' and the name of an abstract one. WATCHDOG: the manager
  // takes the program for dead when it hears nothing for so long; 0: it does not.
  ServiceManager(std::string address, std::chrono::microseconds watchdog)
      : address_(std::move(address)), watchdog_(watchdog) {}

  // Sends LINES; waits a second at most. That nobody listens is no error.
  void tell(std::string_view lines) const;
  // Sends notices that the worker on which it runs is alive, until NAP is woken.
  Task<void> keep_alive(Nap& nap) const;

 private:
  std::string address_;
  std::chrono::microseconds watchdog_{0};
};

}  // namespace cairn::daemon
