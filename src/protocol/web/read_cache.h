#pragma once

#include <array>
#include <coroutine>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "async/task.h"
#include "protocol/web/remote_file.h"

namespace cairn {
class Worker;
}

namespace cairn::web {

// What was read of a remote file, and what will soon be. Short reads go through it, and what
// follows one is fetched ahead when reads continue from byte to byte; long ones go straight to the
// caller's buffer. Its memory is bounded. From any worker.
class ReadCache {
 public:
  explicit ReadCache(RemoteFile& file);
  ~ReadCache();
  ReadCache(const ReadCache&) = delete;

  // Adds what is known already.
  void put(uint64_t offset, std::vector<std::byte> bytes);
  // Reads inside of the file. Throws as RemoteFile::read().
  Task<void> read(uint64_t offset, MutableByteSpan out);

 private:
  struct Waiter {
    Worker* worker;
    std::coroutine_handle<> handle;
  };
  // A piece of the file, in memory or on its way.
  struct Segment {
    uint64_t begin = 0;
    // Not filled with zeroes first: a segment that waits for its turn takes no memory.
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
    bool ready = false;
    std::exception_ptr error;
    std::vector<Waiter> waiters;
    std::unique_ptr<Fetch> fetch;
    uint64_t last_use = 0;
    uint64_t end() const { return begin + size; }
  };
  using SegmentPtr = std::shared_ptr<Segment>;
  // Readers that continue from where they were.
  struct Stream {
    uint64_t next = UINT64_MAX;
    uint64_t window = 0;
    uint64_t last_use = 0;
    unsigned alone = 0;  // long reads in a row, each of them the only one at its time
  };
  struct Arrival;

  // What follows is called with state_ held.
  // Whether a read goes straight to the buffer of its caller.
  bool is_long(uint64_t length) const;
  SegmentPtr find(uint64_t offset);
  uint64_t next_begin(uint64_t offset) const;
  SegmentPtr add(uint64_t begin, uint64_t end, std::vector<SegmentPtr>* started);
  void follow(uint64_t offset, uint64_t length, std::vector<SegmentPtr>* started);
  void read_ahead(uint64_t from, uint64_t window, std::vector<SegmentPtr>* started);
  void make_room();

  void finished(Segment& segment);

  RemoteFile& file_;
  const uint64_t size_;
  std::mutex state_;
  std::map<uint64_t, SegmentPtr> segments_;  // by their begin; they do not overlap
  uint64_t held_ = 0;                        // bytes of all segments
  uint64_t clock_ = 0;
  unsigned readers_ = 0;
  std::array<Stream, 4> streams_;
};

}  // namespace cairn::web
