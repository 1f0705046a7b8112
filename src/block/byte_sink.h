#pragma once

#include <cstdint>
#include <string>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/options.h"

namespace cairn {

// Where a file goes that is written once, from its first byte to its last. It is there when
// finish() has returned, and not before, where that can be.
class ByteSink {
 public:
  ByteSink() = default;
  ByteSink(const ByteSink&) = delete;
  virtual ~ByteSink() = default;

  // Appends BYTES, which are copied or sent before it returns. One call at a time, from any worker.
  virtual Task<void> write(ByteSpan bytes) = 0;
  // All was written. Once, instead of further writes.
  virtual Task<void> finish() = 0;
  // The work has failed: what is under way ends soon, and nothing more is taken. From any thread.
  virtual void abandon() = 0;
  // The work has failed because of WHY, and nothing is under way: takes back what was written, and
  // adds to WHY what is left. Blocks, briefly.
  virtual void discard(Error& why) = 0;
  // Throws when nobody takes what is written any more. From any thread.
  virtual void check() const = 0;
};

// What Driver::upload() makes.
struct UploadRequest {
  std::string filename;
  Options options;         // those of creation that are the driver's
  uint64_t length = 0;     // bytes that are going to be written, about
  bool overwrite = false;  // a file that is there is replaced
};

}  // namespace cairn
