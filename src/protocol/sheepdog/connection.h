#pragma once

#include <chrono>
#include <memory>

#include "async/runtime.h"
#include "protocol/pipelined_connection.h"
#include "protocol/sheepdog/wire.h"

namespace cairn::sheepdog {

// A request and its answer.
struct Operation : PipelinedRequest {
  Header header{};
  ByteSpan data = {};        // follows the header
  MutableByteSpan out = {};  // the largest answer; what the daemon leaves out becomes zero
  // Whether the daemon may do it twice. A request that may not is not sent again when the
  // connection is lost before its answer.
  bool repeatable = true;
  // How long it may wait for its answer, where that is less than the connection allows; 0: that.
  std::chrono::milliseconds patience{0};

  Response response = {};
};

// A connection to a daemon.
class Connection : public PipelinedConnection {
 public:
  // A request that is not answered for STALL ends the connection.
  Connection(std::unique_ptr<Stream> stream, std::chrono::milliseconds stall);
  ~Connection() override;

  // Starts to listen for answers, and to watch how long they take.
  void start();
  // Sends the request and waits for its answer. False when the connection was lost before.
  Task<bool> perform(Operation& operation);
  // Whether the daemon has ever answered.
  bool has_answered() const { return has_answered_; }
  // Ends the connection and waits for the listener.
  Task<void> close();

 private:
  void encode(const PipelinedRequest& request, uint32_t index, uint32_t generation,
              std::vector<std::byte>& header) const override;
  Task<void> receive_one() override;
  Task<void> watch();
  bool stalled();
  Operation& find(uint32_t id) const;

  const std::chrono::milliseconds stall_;
  Nap watching_;
  uint64_t moved_ = 0;  // bytes, when it was last seen to be alive
  Clock::time_point alive_{};
  bool has_answered_ = false;
};

}  // namespace cairn::sheepdog
