#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "async/buffer_pool.h"
#include "async/cancel.h"
#include "async/sync.h"
#include "block/context.h"
#include "block/node.h"
#include "block/rate_limit.h"
#include "job/copy_log.h"
#include "job/data_budget.h"
#include "job/hash.h"
#include "job/lost_ranges.h"
#include "job/low_water.h"
#include "job/progress_steps.h"

namespace cairn {

struct ConvertOptions {
  bool compress = false;         // store whole clusters compressed
  bool keep_compressed = false;  // store compressed what the source has compressed
  bool zero_target = false;      // what is not written reads as zeroes
  bool copy_offload = false;     // let the kernel copy what is verbatim in a file
  bool out_of_order = false;     // plain writes need not follow the order of the disk
  bool in_order = false;         // the target takes everything in the order of the disk only
  bool salvage = false;          // unreadable sectors become zeroes
  uint64_t sparse_bytes = 4096;  // shortest run of zeroes that is not written; 0: write everything
  unsigned parallel = 8;         // requests at a time
  bool count_data = false;       // progress counts what has to be written alone
  uint64_t most_output = 0;      // bytes of data that may be stored; 0: any number
  uint64_t rate = 0;             // bytes a second; 0: as fast as it goes
  OrderedDigest* digest = nullptr;  // is given the whole content, in order; null: none
  // Only what the top layer of the source holds is copied: the target has a backing file that
  // has the rest, of this many bytes.
  std::optional<uint64_t> backing_bytes;
  uint64_t begin = 0;      // everything before it was copied earlier; a boundary that LOG was given
  CopyLog* log = nullptr;  // learns which part is copied; null: none
};

// Copies one or several disks, one after the other, to the start of another.
//
// Memory: PARALLEL buffers of a unit (or a cluster); where requests travel small ones, and some
// large ones. Order: chunks are handed out in the order of the disk and reach the target in it,
// unless OUT_OF_ORDER is set or requests travel; compressed clusters always do, so that the image
// comes out packed.
class Convert {
 public:
  Convert(Context& context, std::vector<NodePtr> sources, NodePtr target, ConvertOptions options,
          const CancelSource& cancel);

  // Called from any worker with bytes dealt with and bytes altogether.
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Of what is read.
  DataBudget budget;
  // What salvage met, a line each as it comes, where the Profile wants it by sector.
  std::function<void(std::string_view)> warn;

  // Throws the first error: "error while reading at byte N: …" and the like. The target is then
  // incomplete. Neither node is closed.
  Task<void> run();
  // Bytes of data that were stored.
  uint64_t stored() const { return stored_.load(); }
  // What salvage met, on the joined disk; empty where WARN was given it.
  const LostRanges& lost() const { return lost_; }
  LostRanges& lost() { return lost_; }

 private:
  enum class State { kData, kZero, kSkip };
  struct Chunk {
    uint64_t number = 0;
    uint64_t offset = 0;  // on the joined disk
    uint64_t length = 0;  // 0: nothing is left
    State state = State::kData;
    bool compressed = false;  // in the source, or to be in the target
    Node* host = nullptr;     // where the bytes are verbatim
    uint64_t host_offset = 0;
    std::shared_ptr<ProgressSteps::Step> step = nullptr;
  };
  struct Source {
    NodePtr node;
    uint64_t begin = 0;  // on the joined disk
    uint64_t end = 0;
  };

  struct Encoded {
    bool zero = false;
    std::vector<std::byte> bytes;  // empty: to be stored plain
  };

  Task<void> work();
  // LARGE is there afterwards when the chunk is to be read and takes more than a worker's own
  // buffer.
  Task<Chunk> next_chunk(BufferPool::Loan& large);
  Task<void> look(uint64_t offset);
  bool is_work(State state) const;
  Task<void> count_work();
  void keep_compressed(Chunk& chunk, uint64_t& end) const;
  Task<void> count(Chunk chunk, ByteSpan buffer);
  Task<void> handle(Chunk chunk, MutableByteSpan buffer);
  std::vector<Encoded> encode(ByteSpan bytes) const;
  Task<void> store(Chunk chunk, MutableByteSpan buffer, const std::vector<Encoded>* encoded);
  Task<void> store_plain(Chunk chunk, MutableByteSpan buffer);
  Task<void> store_encoded(uint64_t offset, ByteSpan bytes, const std::vector<Encoded>& encoded);
  Task<bool> copy_offloaded(const Chunk& chunk);
  Task<void> read_joined(uint64_t offset, MutableByteSpan out);
  Task<void> read_salvaging(uint64_t offset, MutableByteSpan out);
  Task<void> write_runs(uint64_t offset, ByteSpan bytes);
  Task<void> write_zeroes(uint64_t offset, uint64_t length);
  Task<void> throttle(uint64_t bytes);
  void advance(uint64_t bytes);
  const Source& source_at(uint64_t offset) const;

  Context& context_;
  std::vector<Source> sources_;
  NodePtr target_;
  ConvertOptions options_;
  const CancelSource& cancel_;
  uint64_t total_ = 0;
  uint64_t work_ = 0;  // bytes that progress counts
  uint64_t unit_ = 0;
  bool remote_ = false;  // requests travel
  uint64_t own_bytes_ = 0;
  std::optional<BufferPool> large_;
  uint64_t zero_unit_ = uint64_t{1} << 62;  // longest piece of zeroes

  Mutex scan_;  // guards what next_chunk() and look() keep
  uint64_t position_ = 0;
  uint64_t numbers_ = 0;
  Chunk extent_;  // what is known about the disk from position_ on

  InOrder order_;
  ProgressSteps steps_;
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> stored_{0};
  std::atomic<bool> failed_{false};
  std::atomic<bool> offload_{false};
  LostRanges lost_;
  LowWater copied_;
  RateLimit writes_;
};

}  // namespace cairn
