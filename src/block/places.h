#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "async/sync.h"
#include "async/task.h"

namespace cairn {

// The equally large places of a file in which a format keeps blocks, numbered from 0: which of them
// are in use, and which comes next. Any number of workers.
class Places {
 public:
  // Where new blocks go: to free places first, or to the end of the file while there is room.
  enum class Next : uint8_t { kFree, kEnd };
  explicit Places(Next next) : next_(next) {}

  // The first USED of LIMIT places are in use.
  void reset(uint32_t limit, uint32_t used = 0);
  // New places are in use or not as USED says.
  void set_limit(uint32_t limit, bool used = false);
  // PLACE was found in a table, which may be damaged: nothing happens past the limit.
  void use(uint32_t place);
  // After the last place that was ever in use.
  uint32_t end() const;
  void raise_end(uint32_t end);

  // The first of between one and MOST free places in a row, which are in use from now on; 0 in
  // COUNT: none is left.
  uint32_t take(uint64_t most, uint32_t* count);
  // No table has named these places yet.
  void give_back(uint32_t first, uint32_t count);
  // No table names PLACE any longer; it is free when free_after() has been called.
  void give_up(uint32_t place);
  // Awaits STORING, which makes the tables durable. What was given up before is free then, also
  // what another call had begun to free; gives whether this one freed any.
  Task<bool> free_after(Task<void> storing);

 private:
  void free_locked(uint32_t place);

  const Next next_;
  Mutex freeing_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<bool> used_;
  uint32_t end_ = 0;
  uint32_t lowest_ = 0;  // no place before it is free
  std::vector<uint32_t> given_up_;
};

}  // namespace cairn
