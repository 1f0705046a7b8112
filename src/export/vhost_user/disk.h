// A node as a virtio block device: what its requests do.
#pragma once

#include <cstdint>
#include <string>

#include "async/buffer_pool.h"
#include "block/node.h"
#include "export/vhost_user/split_ring.h"
#include "export/vhost_user/wire.h"

namespace cairn::vhost_user {

struct DiskOptions {
  NodePtr node;  // closed by its opener
  bool writable = false;
  bool write_through = false;             // every write is on stable storage when it is answered
  uint32_t block_bytes = 512;             // logical block: 512 to 2 MiB, a power of two
  uint16_t queues = 1;                    // at least 1
  std::string serial = "vhost_user_blk";  // of which guests see 20 bytes
};

// Immutable but for the size of its node; used from all workers.
class Disk {
 public:
  // Throws kInvalid for options that make no sense.
  explicit Disk(DiskOptions options);

  Node& node() const { return *options_.node; }
  const DiskOptions& options() const { return options_; }
  uint64_t features() const;
  BlockConfig config() const;

  // What the guest and the device agreed on.
  struct Agreement {
    bool durable_writes = false;  // the guest does not flush
  };
  // Throws kCorrupt for a chain that has no room for a header and a status.
  static void check(const Chain& chain);
  // Does what CHAIN, checked, asks for and writes its status; the number of bytes that were
  // written, as the used ring has it. Never throws. CHAIN and RING outlive it.
  Task<uint32_t> perform(Chain& chain, const SplitRing& ring, Agreement agreement);

 private:
  // Longer transfers go in pieces of so many bytes, so many pieces at a time.
  static constexpr size_t kPieceBytes = 1 << 20;
  static constexpr unsigned kPieces = 16;
  // Up to here a buffer is made for the request alone.
  static constexpr size_t kSmallBytes = 16 << 10;

  Task<Status> dispatch(Chain& chain, Agreement agreement);
  Task<Status> read(std::vector<Segment>& out, uint64_t sector);
  Task<Status> write(std::vector<Segment>& in, uint64_t sector, bool durable);
  Task<void> read_piece(uint64_t offset, MutableByteSpan out);
  Task<void> write_piece(uint64_t offset, ByteSpan in, bool durable);
  Task<Status> discard(const Chain& chain, Agreement agreement, bool zeroes);
  Status give_id(std::vector<Segment>& out) const;
  bool inside(uint64_t sector, uint64_t bytes) const;

  const DiskOptions options_;
  BufferPool large_{kPieceBytes, kPieces};
};

}  // namespace cairn::vhost_user
