#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "async/sync.h"
#include "async/task_group.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/dirty_bitmap.h"
#include "job/live/job.h"

namespace cairn::live {

struct CopyPiece {
  enum class Kind : uint8_t {
    kData,
    kZero,  // reads as zeroes, to be written so
    kSkip,  // nothing to do
  };
  uint64_t offset = 0;
  uint64_t length = 0;  // 0: nothing is left
  Kind kind = Kind::kData;
};

// Where a job copies from and to. From any worker, many at a time.
class CopyMethod {
 public:
  // What is to be done with the bytes from OFFSET on, and for how many of them, at most MAX, that
  // holds. What it says of data may be wrong a moment later.
  virtual Task<CopyPiece> look(uint64_t offset, uint64_t max) = 0;
  // Does it. BUFFER has room for data. SIDE says afterwards what failed.
  virtual Task<void> copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) = 0;

 protected:
  ~CopyMethod() = default;
};

// Gets to know which pieces are neither wanted nor done: they are taken before they are cleaned in
// the bitmap, and dropped when they are done, or marked again. From any worker; throws nothing.
class CopyWatch {
 public:
  virtual void taken(uint64_t offset, uint64_t length) = 0;
  virtual void dropped(uint64_t offset, uint64_t length) = 0;

 protected:
  ~CopyWatch() = default;
};

struct CopySettings {
  uint64_t unit = 65536;    // bytes; pieces of data are whole ones, but for the end of the disk
  uint64_t most = 1 << 20;  // bytes of a piece of data
  unsigned requests = 16;   // at a time
  OnError on_read = OnError::kReport;
  OnError on_write = OnError::kReport;
  bool skip_ignored = false;  // an ignored error leaves its piece out, and fails the job in the end
  bool count = true;          // what is done is progress of the job
  CopyWatch* watch = nullptr;  // null: nobody wants to know
};

// Carries out what a bitmap says is wanted: many pieces at a time, spread over the workers, within
// the speed of the job, which can be paused and cancelled between pieces.
//
// A piece is cleaned in the bitmap before it is looked at for good, and marked again when it was
// not done: what is marked meanwhile, as it was written, is done again. Memory: a buffer of a piece
// for each request.
class CopyEngine {
 public:
  CopyEngine(Job& job, Context& context, DirtyBitmapPtr wanted, CopyMethod& method,
             CopySettings settings)
      : job_(job),
        context_(context),
        wanted_(std::move(wanted)),
        method_(method),
        settings_(settings) {}

  // Goes through the disk once. Throws the first error; nothing is under way then.
  Task<void> pass();
  // Passes until nothing is wanted. Throws in the end what was left out.
  Task<void> run();
  // Bytes that are being copied.
  uint64_t under_way() const { return under_way_.load(std::memory_order_relaxed); }

 private:
  Task<void> work(const TaskGroup& group);
  Task<CopyPiece> claim(const TaskGroup& group);
  Task<CopyPiece> take(uint64_t offset, uint64_t max);
  Task<CopyPiece> look(uint64_t offset, uint64_t max);
  Task<void> carry_out(CopyPiece piece, AlignedBuffer& buffer);
  Task<bool> again(const Error& error, JobSide side, unsigned failures);
  uint64_t most() const;
  void taken(uint64_t offset, uint64_t length) {
    if (settings_.watch != nullptr) settings_.watch->taken(offset, length);
  }
  void dropped(uint64_t offset, uint64_t length) {
    if (settings_.watch != nullptr) settings_.watch->dropped(offset, length);
  }

  Job& job_;
  Context& context_;
  const DirtyBitmapPtr wanted_;
  CopyMethod& method_;
  const CopySettings settings_;
  std::atomic<uint64_t> under_way_{0};
  Mutex next_mutex_;   // what follows
  uint64_t next_ = 0;  // offset that nobody of this pass has looked at
  std::mutex left_out_mutex_;
  std::exception_ptr left_out_;
};

}  // namespace cairn::live
