#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "async/task.h"
#include "base/value.h"
#include "daemon/chardev/channel.h"

namespace cairn::daemon {

// The connection of a daemon and its successor: messages are objects with a member "step", a line
// each. Belongs to one worker.
class Link {
 public:
  explicit Link(Socket socket) : channel_(std::make_unique<Stream>(std::move(socket))) {}

  // Throws kIo when the other one has ended.
  Task<void> send(std::string step, Value message = Value::object());
  // The next message, which must be STEP. Throws kIo when the other one has ended, or says nothing
  // for so long, and with its words when it says that it failed.
  Task<Value> receive(std::string step, std::chrono::seconds longest);

 private:
  Task<std::string> line();
  SocketChannel channel_;
  std::string input_;
};

// The step with which one says that it failed, and the member with the reason.
inline constexpr const char* kFailedStep = "failed";
inline constexpr const char* kFailedReason = "message";

}  // namespace cairn::daemon
