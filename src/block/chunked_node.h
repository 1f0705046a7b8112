#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "async/sync.h"
#include "base/buffer.h"
#include "block/format_node.h"
#include "block/open.h"

namespace cairn {

// A compressed piece of a disk, which is decoded as a whole.
struct EncodedChunk {
  uint64_t offset = 0;  // on the disk, bytes
  uint64_t bytes = 0;   // decoded; 0: there is no such chunk, or it is not decoded
  uint64_t host_offset = 0;
  uint64_t host_bytes = 0;
  uint64_t token = 0;  // the driver's own, for decode()
};

// What a ChunkedNode keeps.
struct ChunkCache {
  uint64_t bytes = 32 << 20;
  unsigned ahead = 4;              // chunks that are decoded ahead of a reader
  uint64_t ahead_bytes = 4 << 20;  // larger ones are not: they would push each other out
  // True: also for readers that have several requests under way, as chunks are longer than those.
  bool parallel = false;
};

// A read-only image of numbered chunks that are decoded as a whole: cloop, DMG, packed files.
//
// A chunk that a request asks for entirely is decoded into the request's own memory. Others are
// decoded into a cache, once however many ask at a time; a reader that goes through the disk with
// one request at a time has the next chunks decoded ahead of it, on the pool.
// Memory outside the cache: what is encoded and decoded at a time is bounded by kWorkBytes, but for
// a single chunk that is larger.
class ChunkedNode : public FormatNode {
 public:
  ChunkedNode(Context& context, const Driver& driver, NodePtr file, ChunkCache sizes = {});
  ~ChunkedNode() override;

  static constexpr uint64_t kWorkBytes = 128 << 20;

 protected:
  // Chunk NUMBER; any number may be asked for.
  virtual Task<EncodedChunk> chunk(uint64_t number) = 0;
  // Fills OUT, which is CHUNK.bytes long, from ENCODED. Called on any thread. Throws kCorrupt; the
  // chunk's place is added to the error.
  virtual void decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const = 0;
  // How messages name chunk NUMBER: "block 5".
  virtual std::string name_of(uint64_t number) const = 0;

  // Throws what a driver that cannot write answers to being opened for it.
  static void refuse_writing(const OpenContext& request);
  Node& file() const { return *file_; }

  Task<void> read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) final;
  // Chunks of one kind in a row are one extent. Under QEMU's names the whole disk is data, as its
  // drivers for these formats know no better.
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_close() override;

 private:
  // A chunk in the cache: decoded, or to be decoded by the one that takes the lock first.
  struct Decoded {
    explicit Decoded(uint64_t bytes) : content(bytes) {}
    Mutex filling;
    std::atomic<bool> ready{false};
    AlignedBuffer content;
  };
  using DecodedPtr = std::shared_ptr<Decoded>;

  DecodedPtr entry_of(uint64_t number, uint64_t bytes, bool make);
  Task<void> fill(uint64_t number, EncodedChunk chunk, DecodedPtr entry, bool ahead);
  Task<void> decode_into(uint64_t number, EncodedChunk chunk, MutableByteSpan out, bool ahead);
  Task<void> read_chunk(uint64_t number, uint64_t offset, MutableByteSpan out);
  // The numbers to decode ahead of a reader that has come to chunk NUMBER: from … up to, without.
  std::pair<uint64_t, uint64_t> ahead_of(uint64_t number);
  bool comes_to(uint64_t number);
  Task<void> decode_ahead(uint64_t number, RwLock::Guard open);

  const ChunkCache sizes_;
  Semaphore work_;  // KiB of memory for decoding
  RwLock open_;     // held shared by what decodes ahead
  std::atomic<bool> closing_{false};
  std::atomic<unsigned> readers_{0};

  struct Cached {
    DecodedPtr entry;
    std::list<uint64_t>::iterator age;
  };
  std::mutex state_;  // guards what follows
  std::unordered_map<uint64_t, Cached> cache_;
  std::list<uint64_t> ages_;  // numbers, most recently used first
  uint64_t cached_bytes_ = 0;
  uint64_t last_ =
      UINT64_MAX - 1;   // the chunk that was read last; where parallel, the furthest one
  uint64_t ahead_ = 0;  // chunks below it were asked for ahead
  unsigned alone_ = 0;  // reads in a row that met no other
};

}  // namespace cairn
