#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

  // How many of the first bytes, at most MOST, are where they belong since an earlier run of the
  // same work: they count as written. Before the first write(), from a caller who knows that it
  // would write the same again.
  virtual uint64_t skip_known(uint64_t /*most*/) { return 0; }
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

// A part of an upload, as a server took it.
struct UploadedPart {
  uint64_t number = 0;  // from 1 on
  uint64_t bytes = 0;
  std::string digest;  // SHA-256 of the bytes, in hexadecimal
  std::string mark;    // by which the server names what it has

  bool operator==(const UploadedPart&) const = default;
};

// Keeps what a server has of an upload, so that a later run can go on with it. What was kept stays
// at the server when the work fails.
class UploadLog {
 public:
  // What earlier runs left at the server.
  struct Left {
    std::string id;        // what the server calls the upload; empty: there is none
    bool useless = false;  // it has to be ended, and another one begun
    std::vector<UploadedPart> parts;
  };

  UploadLog() = default;
  UploadLog(const UploadLog&) = delete;
  virtual ~UploadLog() = default;

  virtual const Left& left() const = 0;
  // The server still has what was left, with BYTES in the parts that it names as they were noted.
  virtual void goes_on(uint64_t bytes) = 0;
  // The server has nothing of what was left any more. Blocks.
  virtual void ended() = 0;
  // The server has begun an upload that it calls ID, without any part. It is kept when this has
  // returned. Blocks; before sent().
  virtual void began(const std::string& id) = 0;
  // The server has PART. From any thread; blocks.
  virtual void sent(const UploadedPart& part) = 0;
};

// What Driver::upload() makes.
struct UploadRequest {
  std::string filename;
  Options options;         // those of creation that are the driver's
  uint64_t length = 0;     // bytes that are going to be written, about
  bool overwrite = false;  // a file that is there is replaced
  // Outlives the sink. Null: nothing stays of an upload that fails.
  UploadLog* log = nullptr;
};

}  // namespace cairn
