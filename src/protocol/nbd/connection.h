#pragma once

#include <coroutine>
#include <memory>
#include <vector>

#include "async/sync.h"
#include "async/task_group.h"
#include "net/nbd_wire.h"
#include "protocol/nbd/handshake.h"

namespace cairn::nbd::client {

// A request and what becomes of it. Lives in the frame of who awaits it, as do the buffers.
struct Operation {
  Command command{};
  uint16_t flags = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  ByteSpan payload;     // WRITE
  MutableByteSpan out;  // READ

  // The answer.
  int error = 0;           // errno, 0: success
  std::string error_text;  // the server's words
  std::vector<StatusExtent> extents;

  // Used by the connection.
  struct Piece {
    uint64_t begin, end;
  };
  std::vector<Piece> covered;  // READ: in order, none touches the next
  bool status_seen = false;
  bool lost = false;
  std::coroutine_handle<> waiter;
  bool ended = false;
};

// A connection in transmission. Belongs to the worker that made it. Requests are pipelined: many
// are under way, their answers come in any order and in pieces. Every answer is checked against its
// request before a byte of it is stored.
class Connection {
 public:
  static constexpr unsigned kMostUnderWay = 64;

  Connection(std::unique_ptr<Stream> stream, const Agreement& agreed);
  ~Connection();
  const Agreement& agreed() const { return agreed_; }

  // Starts listening for answers.
  void start();
  // Sends the request and waits for its answer. False when the connection was lost before: nothing
  // is known about the request then.
  Task<bool> perform(Operation& operation);
  // Not usable any more; fault() tells why.
  bool lost() const { return lost_; }
  // What the server did wrong; empty when the connection just broke.
  const std::string& violation() const { return violation_; }
  const std::string& reason() const { return reason_; }
  // Says goodbye and waits for the listener.
  Task<void> close();
  // Breaks off; those that wait get an error. Does not wait.
  void abort();

 private:
  struct Answered;
  Task<void> listen();
  Task<void> receive_one();
  Task<void> receive_simple(ByteSpan head, Operation& operation);
  Task<void> receive_chunk(const ChunkHeader& header, Operation& operation);
  Task<void> receive_data(const ChunkHeader& header, Operation& operation);
  Task<void> receive_hole(const ChunkHeader& header, Operation& operation);
  Task<void> receive_status(const ChunkHeader& header, Operation& operation);
  Task<void> receive_error(const ChunkHeader& header, Operation& operation);
  Task<void> read(MutableByteSpan out);
  Operation& find(uint64_t cookie);
  void finish(uint64_t cookie, Operation& operation);
  void fail_all();

  std::unique_ptr<Stream> stream_;
  Agreement agreed_;
  Semaphore slots_free_{kMostUnderWay};
  Mutex sending_;
  struct Slot {
    Operation* operation = nullptr;
    uint32_t generation = 0;
  };
  std::vector<Slot> slots_;
  TaskGroup listener_;
  bool lost_ = false;
  bool closing_ = false;
  std::string violation_;
  std::string reason_;
};

}  // namespace cairn::nbd::client
