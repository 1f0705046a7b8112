#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "async/sync.h"
#include "base/bytes.h"
#include "base/large_buffer.h"

namespace cairn {

// Memory for requests that own their bytes, since a library may use them for longer than anybody
// waits for the answer. What comes back is kept for the next request, up to a bound for the whole
// process: from malloc each would be mapped and filled with zeroes by the system, and threads of
// the library would keep what other threads gave back. From any thread.
class ByteStock {
 public:
  // Bytes that nobody else has, with any content. Short ones are malloc's.
  class Bytes {
   public:
    explicit Bytes(size_t size);
    ~Bytes();
    Bytes(const Bytes&) = delete;

    MutableByteSpan span() { return {small_ ? small_.get() : large_.span().data(), size_}; }

   private:
    const size_t size_;
    std::unique_ptr<std::byte[]> small_;
    LargeBuffer large_;
  };

 private:
  static ByteStock& all();
  LargeBuffer take(size_t size);
  void give_back(LargeBuffer buffer);

  std::mutex mutex_;
  std::vector<LargeBuffer> idle_;  // the one that came back last is at the end
  size_t idle_bytes_ = 0;
};

// What the requests of a disk may own at a time.
class RequestRoom {
 public:
  // For the time of a request; held by who waits for its answer.
  class Place {
   public:
    Place(RequestRoom& room, size_t length) : room_(room), length_(length) {}
    ~Place() { room_.free_.release(cost(length_)); }
    Place(const Place&) = delete;

   private:
    RequestRoom& room_;
    const size_t length_;
  };

  RequestRoom() : free_(kMostBytes) {}
  // Waits until there is room for a request of LENGTH bytes, kMostTransferBytes at most; a Place is
  // made then.
  Semaphore::Awaiter acquire(size_t length) { return free_.acquire(cost(length)); }

  static constexpr uint64_t kMostTransferBytes = 2 << 20;

 private:
  // What libraries need for a request besides its bytes, their copy of which is not counted.
  static constexpr uint64_t kRequestBytes = 64 << 10;
  static constexpr uint64_t kMostBytes = 3 * (kMostTransferBytes + kRequestBytes);
  static uint64_t cost(size_t length) { return length + kRequestBytes; }

  Semaphore free_;
};

}  // namespace cairn
