#pragma once

#include <chrono>
#include <coroutine>
#include <memory>
#include <string>
#include <vector>

#include "async/runtime.h"
#include "async/sync.h"
#include "async/task_group.h"
#include "net/stream.h"
#include "protocol/sheepdog/wire.h"

namespace cairn::sheepdog {

// A request and its answer. Belongs to the coroutine that awaits it, as do the buffers.
struct Operation {
  Header header{};
  ByteSpan data = {};        // follows the header
  MutableByteSpan out = {};  // the largest answer; what the daemon leaves out becomes zero
  // Whether the daemon may do it twice. A request that may not is not sent again when the
  // connection is lost before its answer.
  bool repeatable = true;
  // How long it may wait for its answer, where that is less than the connection allows; 0: that.
  std::chrono::milliseconds patience{0};

  Response response = {};

  // Used by the connection.
  bool sent = false;  // the daemon may have seen it
  bool lost = false;
  bool ended = false;
  std::coroutine_handle<> waiter = {};
};

// A connection to a daemon. Belongs to the worker that made it. Requests are pipelined and answered
// in any order. Every answer is checked against its request before a byte of it is stored.
class Connection {
 public:
  static constexpr unsigned kMostUnderWay = 64;

  // A request that is not answered for STALL ends the connection.
  Connection(std::unique_ptr<Stream> stream, std::chrono::milliseconds stall);
  ~Connection();

  // Starts to listen for answers.
  void start();
  // Sends the request and waits for its answer. False when the connection was lost before.
  Task<bool> perform(Operation& operation);
  // How the daemon broke the protocol; empty when the connection only broke.
  const std::string& violation() const { return violation_; }
  const std::string& reason() const { return reason_; }
  // Whether the daemon has ever answered.
  bool has_answered() const { return has_answered_; }
  // Ends the connection and waits for the listener.
  Task<void> close();

 private:
  struct Answered;
  using Clock = std::chrono::steady_clock;
  struct Slot {
    Operation* operation = nullptr;
    uint32_t generation = 0;
    Clock::time_point since{};
  };

  Task<void> listen();
  Task<void> receive_one();
  Task<void> watch();
  bool stalled();
  Slot& find(uint32_t id);
  void fail_all();

  std::unique_ptr<Stream> stream_;
  const std::chrono::milliseconds stall_;
  Semaphore slots_free_{kMostUnderWay};
  Mutex sending_;
  std::vector<Slot> slots_;
  TaskGroup tasks_;
  Nap watching_;
  uint64_t moved_ = 0;  // bytes, when it was last seen to be alive
  Clock::time_point alive_{};
  bool lost_ = false;
  bool closing_ = false;
  bool has_answered_ = false;
  std::string violation_;
  std::string reason_;
};

}  // namespace cairn::sheepdog
