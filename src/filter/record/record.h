#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "filter/filter.h"

namespace cairn {

// One thing that reached the file: what a crash may or may not have kept.
struct RecordedEvent {
  enum class Kind { kWrite, kZero, kDiscard, kResize, kFlush };
  Kind kind = Kind::kFlush;
  uint64_t offset = 0;  // for kResize: the new length
  uint64_t length = 0;
  std::vector<std::byte> bytes;  // of kWrite
  bool exact = true;             // of kResize; false: a longer file stays as it is
  // When it had ended: the order among several files.
  std::chrono::steady_clock::time_point when = {};
};

// Keeps a list of all changes and flushes in the order in which they ended: the crash suite replays
// parts of it.
class RecordNode : public FilterNode {
 public:
  using FilterNode::FilterNode;
  // What was recorded until now.
  std::vector<RecordedEvent> events() const;
  size_t count() const;

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  void add(RecordedEvent event);
  mutable std::mutex mutex_;
  std::vector<RecordedEvent> events_;
};

}  // namespace cairn
