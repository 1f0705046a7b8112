#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "async/cancel.h"
#include "async/task.h"
#include "base/error.h"
#include "base/json_stream.h"
#include "base/value.h"
#include "net/socket.h"

namespace cairn {

// What a QMP server answered instead of a result. message() is its text.
class QmpRefusal : public Error {
 public:
  QmpRefusal(std::string error_class, std::string message);
  // "GenericError", "CommandNotFound", "DeviceNotFound", …
  const std::string& error_class() const { return class_; }

 private:
  std::string class_;
};

// A connection to the control socket of a storage daemon or an emulator, which speaks QMP. It
// belongs to one worker, and one coroutine at a time uses it. What the server sends is not trusted:
// its messages are bounded (JsonStream), and so is the number of events that wait.
//
// All calls throw kIo when the connection breaks or the peer speaks something else, kIo with
// ETIMEDOUT when a deadline passes, and kCancelled soon after the CancelSource asked for it. After
// kCancelled the connection may still be used, once finish_within() was called: a late reply to
// the command that was cut off is passed over.
class QmpClient {
 public:
  static constexpr size_t kMostEvents = 4096;  // that wait; the oldest ones go first

  // "unix:PATH", "tcp:HOST:PORT", or a path (it has a '/') or else HOST:PORT. Throws kInvalid.
  static SocketAddress parse_address(const std::string& text);

  // Connects, takes the greeting, and negotiates, all before DEADLINE. CANCEL may be null and
  // outlives the client.
  static Task<std::unique_ptr<QmpClient>> connect(SocketAddress address, const CancelSource* cancel,
                                                  Deadline deadline = kNoDeadline);
  // The same over a socket that is connected.
  static Task<std::unique_ptr<QmpClient>> negotiate(Socket socket, const CancelSource* cancel,
                                                    Deadline deadline = kNoDeadline);

  // Runs COMMAND with the members of ARGUMENTS (an object) and gives its "return". Throws
  // QmpRefusal when the server answers with an error.
  Task<Value> execute(std::string command, Value arguments = Value::object(),
                      Deadline deadline = kNoDeadline);

  // The oldest event that no call has given yet: an object with "event", "data", "timestamp".
  // Nothing when DEADLINE passes first.
  Task<std::optional<Value>> next_event(Deadline deadline);

  // From now on the CancelSource ends no call at once; but what is waited for must come within
  // LIMIT of the moment at which it asked.
  void finish_within(std::chrono::nanoseconds limit) { grace_ = limit; }
  // The object "QMP" of the greeting: "version" and "capabilities".
  const Value& greeting() const { return greeting_; }
  // The descriptor of the connection, for who sends descriptors along with a command.
  const Socket& socket() const { return socket_; }

 private:
  QmpClient(Socket socket, const CancelSource* cancel)
      : socket_(std::move(socket)), cancel_(cancel) {}
  Task<bool> wait(Deadline deadline);
  Task<void> send(std::string text, Deadline deadline);
  Task<std::optional<Value>> receive(Deadline deadline);
  void keep(Value event);

  Socket socket_;
  const CancelSource* cancel_;
  std::optional<std::chrono::nanoseconds> grace_;  // once cancellation was asked for
  JsonStream input_;
  Value greeting_;
  std::deque<Value> events_;
  uint64_t last_id_ = 0;
};

}  // namespace cairn
