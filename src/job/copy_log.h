#pragma once

#include <cstdint>

#include "async/task.h"
#include "block/node.h"

namespace cairn {

// Who keeps a record of what is copied, so that another copy can continue where it ended. Offsets
// are those of the joined disk.
class CopyLog {
 public:
  virtual ~CopyLog() = default;

  // Data before END may be written when this returns. In the order of the disk, one call at a time.
  // What it throws ends the copy.
  virtual Task<void> begins(uint64_t end) = 0;
  // Writes of everything before END have returned; whether they are durable is the log's business.
  // From any worker, several at a time and in any order. What it throws ends the copy.
  virtual Task<void> reached(uint64_t end) = 0;
};

// How a copy that ended early left its target.
struct UnfinishedCopy {
  uint64_t done = 0;   // everything before it is durable
  uint64_t begun = 0;  // no data was written from here on
  bool whole = false;  // clusters were written as a whole, never in part
};

// Zeroes what an interrupted copy wrote to TARGET past what is done, as another one is about to
// begin there: that one leaves out what reads as zeroes, and stores compressed where nothing is.
// Where TARGET has a backing file only whole clusters can be zeroed: nothing is done without WHOLE,
// and the data is written over what is there. Throws as writing.
Task<void> zero_unfinished(Node& target, UnfinishedCopy copy);

}  // namespace cairn
