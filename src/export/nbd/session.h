#pragma once

#include <array>
#include <memory>
#include <vector>

#include "async/async.h"
#include "base/buffer.h"
#include "export/nbd/connection.h"
#include "net/nbd_wire.h"

namespace cairn::nbd::server {

// Memory for payloads: freed pieces are kept, up to a bound, for the next request.
class PayloadPool {
 public:
  explicit PayloadPool(ServerMemory& memory) : memory_(memory) {}
  ~PayloadPool();
  PayloadPool(const PayloadPool&) = delete;
  AlignedBuffer take(size_t bytes);
  void give_back(AlignedBuffer buffer);

 private:
  static constexpr size_t kMostKept = 4 << 20;
  std::vector<AlignedBuffer> free_;
  size_t kept_ = 0;
  ServerMemory& memory_;
};

// The transmission phase of one connection. Requests are read one after the other and run side by
// side; replies go out as they are ready, many with one call. A request holds a slot and, for its
// payload, memory until its reply has been written: a client that sends without reading is not read
// from any more.
class Session {
 public:
  Session(Server& server, Connection& connection, Stream& stream, Agreement agreement);
  // Until the client disconnects, or the connection or the protocol breaks (which throws).
  Task<void> run();

 private:
  static constexpr unsigned kMostRequests = 64;
  // Of payloads at a time; a longer request has it all to itself. Of a disk of this machine more
  // would not be faster, but in memory that is fresh each time.
  static constexpr uint64_t kMostMemory = uint64_t{4} << 20;
  static constexpr uint64_t kMostRemoteMemory = uint64_t{40} << 20;
  // While this much waits to be sent no further request is begun: what is read from the disk is
  // still in the processor's cache when it is sent.
  static constexpr size_t kMostUnsent = 512 << 10;
  // Payloads of refused writes up to this size are read and dropped.
  static constexpr uint64_t kMostDropped = uint64_t{64} << 20;

  // A stretch of the reply: of its headers, or of the payload.
  struct Piece {
    bool payload = false;
    size_t offset = 0;
    size_t length = 0;
  };
  struct Job {
    Request request;
    AlignedBuffer payload;
    uint64_t memory = 0;  // taken from memory_
    uint64_t shared = 0;  // and from the server's
    StatusQuery query;    // block status with a payload
    Bytes headers;
    std::vector<Piece> pieces;
  };
  // Why a request is refused, before anything is done; 0: it is not.
  struct Refusal {
    int error = 0;
    const char* text = "";
  };

  struct Sent;
  Task<bool> next_request();
  Task<void> claim(Job& job, uint64_t bytes);
  Task<void> take_payload(Job& job, bool payload_follows);
  Refusal validate(const Request& request, bool with_query) const;
  Task<void> execute(std::unique_ptr<Job> job);
  Task<void> perform(Job& job);
  Task<void> read(Job& job);
  Task<void> trim(const Request& request);
  Task<void> write_zeroes(const Request& request);
  Task<void> block_status(Job& job);
  void reply_ok(Job& job);
  void reply_error(Job& job, int error, std::string_view text);
  void reply_data(Job& job);
  void add_chunk(Job& job, Chunk type, bool done, uint64_t payload_bytes);
  void add_headers(Job& job, size_t from);
  bool chunked() const { return agreement_.structured || agreement_.extended; }

  std::unique_ptr<Job> new_job();
  void enqueue(std::unique_ptr<Job> job);
  Task<void> write_replies();
  void recycle(std::unique_ptr<Job> job);

  Server& server_;
  Connection& connection_;
  Stream& stream_;
  Agreement agreement_;
  const Export& export_;
  Node& node_;
  BlockSizeInfo sizes_;
  Semaphore slots_{kMostRequests};
  const uint64_t most_memory_;
  Semaphore memory_{most_memory_};
  TaskGroup group_;
  std::vector<std::unique_ptr<Job>> queue_;
  size_t queued_bytes_ = 0;         // of replies in queue_
  size_t unsent_bytes_ = 0;         // of these and of those that are being sent
  std::coroutine_handle<> reader_;  // waits until less is unsent
  bool writing_ = false;
  bool broken_ = false;
  std::vector<iovec> vectors_;
  std::vector<std::unique_ptr<Job>> free_jobs_;
  PayloadPool pool_;
};

}  // namespace cairn::nbd::server
