#pragma once

#include <deque>

#include "async/adaptive_mutex.h"
#include "async/io.h"

namespace cairn {

// Writes to one file in memory (tmpfs), one at a time. The kernel lets no two of them in; threads
// that sleep before its lock cost more than the copying does. Who finds a write under way
// leaves its own to that thread and continues with other work. Short ones, as those of guests, go
// first. From any worker.
class WriteTurns {
 public:
  WriteTurns() = default;
  WriteTurns(const WriteTurns&) = delete;

  // As io_writev().
  Task<ssize_t> write(IoFile file, std::span<const iovec> buffers, uint64_t offset);

 private:
  struct Waiting;
  Waiting* next();

  AdaptiveMutex mutex_;
  bool busy_ = false;
  std::deque<Waiting*> short_ones_;
  std::deque<Waiting*> long_ones_;
  unsigned short_in_row_ = 0;
};

}  // namespace cairn
