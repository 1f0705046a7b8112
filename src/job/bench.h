#pragma once

#include <atomic>

#include "async/cancel.h"
#include "async/sync.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

struct BenchOptions {
  uint64_t count = 75000;
  unsigned depth = 64;   // requests at a time
  unsigned workers = 1;  // threads that send them
  uint64_t offset = 0;
  uint64_t size = 4096;
  uint64_t step = 4096;
  bool write = false;
  std::byte pattern{0};
  uint64_t flush_interval = 0;  // writes between two flushes; 0: none
  bool drain = true;            // a flush waits until no write is under way
};

// Sends equally large requests at equal steps, wrapping at the end of the disk.
class Bench {
 public:
  Bench(Context& context, NodePtr node, BenchOptions options, const CancelSource& cancel);
  // Called from any worker with bytes read or written, and bytes altogether.
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Throws the error of the first request that failed.
  Task<void> run();

 private:
  Task<void> work();
  Task<void> flush_after(uint64_t written);
  uint64_t offset_of(uint64_t number) const;

  Context& context_;
  NodePtr node_;
  BenchOptions options_;
  const CancelSource& cancel_;
  AlignedBuffer pattern_;
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> written_{0};
  std::atomic<bool> failed_{false};
  RwLock draining_;
};

}  // namespace cairn
