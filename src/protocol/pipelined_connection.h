#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "async/task_group.h"
#include "base/bytes.h"
#include "net/stream.h"

namespace cairn {

// A request that waits for its answer. Belongs to the coroutine that awaits it, as do the buffers.
struct PipelinedRequest {
  bool sent = false;   // the server may have seen it
  bool lost = false;   // the connection ended before the answer came
  bool ended = false;  // it was answered, or is lost
  std::coroutine_handle<> waiter = {};
};

// A connection to a server over which many requests are under way: their answers come in any order.
// Belongs to the worker that made it, on which all of its methods are called. A protocol encodes
// requests, and receives an answer and checks it against its request before a byte of it is stored.
class PipelinedConnection {
 public:
  static constexpr unsigned kMostUnderWay = 64;

  virtual ~PipelinedConnection();

  // Not usable any more; reason() says why.
  bool lost() const { return lost_; }
  // How the server broke the protocol; empty when the connection only broke.
  const std::string& violation() const { return violation_; }
  const std::string& reason() const { return reason_; }
  // Breaks off: what waits is lost. Does not wait.
  void abort() { stream_->abort(); }

 protected:
  using Clock = std::chrono::steady_clock;
  struct Slot {
    PipelinedRequest* request = nullptr;
    uint32_t generation = 0;  // how often the slot was used
    Clock::time_point since{};

    // Whether an answer to what is in the slot may come.
    bool waits() const { return request != nullptr && !request->ended; }
  };

  // BREAKS: how the message on a server that breaks the protocol begins.
  PipelinedConnection(std::unique_ptr<Stream> stream, std::string breaks);

  // Puts the bytes of the request in the slot numbered INDEX, which its answer must repeat somehow,
  // into HEADER.
  virtual void encode(const PipelinedRequest& request, uint32_t index, uint32_t generation,
                      std::vector<std::byte>& header) const = 0;
  // Receives one answer, or a part of one. Throws kInvalid when it is against the protocol, and
  // other errors when the connection breaks.
  virtual Task<void> receive_one() = 0;

  // Starts to listen for answers.
  void start();
  // Sends REQUEST, which PAYLOAD follows, and waits for its answer. False when the connection was
  // lost before: nothing is known about the request then.
  Task<bool> transact(PipelinedRequest& request, ByteSpan payload);
  // REQUEST is answered: what waits for it is resumed.
  static void finish(PipelinedRequest& request);
  // Throws kInvalid: the server breaks the protocol, as WHAT says.
  [[noreturn]] void broken(const std::string& what) const;
  // Gives up: WHY counts unless there was a reason before.
  void abort_for(const std::string& why);
  // Ends the connection and waits for what was spawned. No request is sent any more.
  Task<void> end();

  const std::vector<Slot>& slots() const { return slots_; }
  Stream& stream() { return *stream_; }
  Mutex& sending() { return sending_; }
  void spawn(Task<void> task) { tasks_.spawn(std::move(task)); }
  // From here on no request is sent.
  void shut() { closing_ = true; }

 private:
  struct Answered;
  Task<void> listen();
  void fail_all();

  const std::unique_ptr<Stream> stream_;
  const std::string breaks_;
  Semaphore slots_free_{kMostUnderWay};
  Mutex sending_;
  std::vector<Slot> slots_;
  TaskGroup tasks_;
  bool lost_ = false;
  bool closing_ = false;
  std::string violation_;
  std::string reason_;
};

}  // namespace cairn
