#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/capabilities/storage_use.h"
#include "block/context.h"
#include "block/node.h"
#include "block/spool.h"
#include "codec/unpack.h"

namespace cairn {

// Bytes that come from a descriptor once, from begin to end: a pipe, a socket. One task at a time.
class PipeReader {
 public:
  // NAME is what messages call it. The descriptor stays open.
  PipeReader(Context& context, int fd, std::string name);

  // What comes next, at most BYTES of it; it stays to be read.
  Task<ByteSpan> peek(size_t bytes);
  // From here on it is packed so: peek() and read() give what it unpacks to.
  void unpack(Packing packing);
  // Fills OUT; less where the content ends. Throws kCancelled, kCorrupt, kIo.
  Task<size_t> read(MutableByteSpan out);
  // Bytes that came from the descriptor.
  uint64_t received() const { return received_; }

 private:
  // These block.
  size_t receive(MutableByteSpan out);
  size_t unpack_some(MutableByteSpan out);

  Context& context_;
  int fd_;
  std::string name_;
  std::vector<std::byte> ahead_;  // was looked at
  uint64_t received_ = 0;
  uint64_t content_ = 0;
  bool ended_ = false;
  std::unique_ptr<Unpacker> unpacker_;
  std::vector<std::byte> buffer_;  // of what the unpacker takes
  ByteSpan packed_;                // the part of it that is left
};

// The bytes of a stream that was stored, as a node to be read.
class PipeInput : public Node, public StorageUse {
 public:
  using Capabilities = CapabilityList<StorageUse>;

  // SPOOL (null: BYTES is a file by itself) lives as long as this node.
  PipeInput(Context& context, NodePtr bytes, std::shared_ptr<Spool> spool, std::string name);
  Task<std::optional<uint64_t>> allocated_bytes() override { return allocated_bytes_of(*bytes_); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    return bytes_->read(offset, out);
  }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_close() override { return bytes_->close(); }

 private:
  NodePtr bytes_;
  std::shared_ptr<Spool> spool_;
};

}  // namespace cairn
