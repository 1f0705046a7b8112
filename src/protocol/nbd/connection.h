#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/nbd_wire.h"
#include "protocol/nbd/handshake.h"
#include "protocol/pipelined_connection.h"

namespace cairn::nbd::client {

// A request and what becomes of it.
struct Operation : PipelinedRequest {
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
};

// A connection in transmission; answers also come in pieces.
class Connection : public PipelinedConnection {
 public:
  Connection(std::unique_ptr<Stream> stream, const Agreement& agreed);
  ~Connection() override;
  const Agreement& agreed() const { return agreed_; }

  using PipelinedConnection::start;
  // Sends the request and waits for its answer. False when the connection was lost before.
  Task<bool> perform(Operation& operation);
  // Says goodbye and waits for the listener.
  Task<void> close();

 private:
  void encode(const PipelinedRequest& request, uint32_t index, uint32_t generation,
              Bytes& header) const override;
  Task<void> receive_one() override;
  Task<void> receive_simple(ByteSpan head, Operation& operation);
  Task<void> receive_chunk(const ChunkHeader& header, Operation& operation);
  Task<void> receive_data(const ChunkHeader& header, Operation& operation);
  Task<void> receive_hole(const ChunkHeader& header, Operation& operation);
  Task<void> receive_status(const ChunkHeader& header, Operation& operation);
  Task<void> receive_error(const ChunkHeader& header, Operation& operation);
  Task<void> read(MutableByteSpan out);
  Operation& find(uint64_t cookie) const;
  // Checks that the answer is a whole one.
  void complete(Operation& operation) const;

  const Agreement agreed_;
};

}  // namespace cairn::nbd::client
