#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/bytes.h"
#include "base/error.h"
#include "protocol/byte_stock.h"
#include "protocol/rbd/rbd_library.h"

namespace cairn {
class Worker;
}

namespace cairn::rbd {

// One request to an image. It owns its bytes: the library may use them for longer than anybody
// waits for the answer.
class Request {
 public:
  enum class Kind : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };
  // THICK, of zeroes: they take space.
  Request(Kind kind, uint64_t offset, uint64_t length, bool thick = false);
  Request(const Request&) = delete;

  Kind kind() const { return kind_; }
  uint64_t length() const { return length_; }
  // Of reads and writes.
  MutableByteSpan bytes() { return bytes_ ? bytes_->span() : MutableByteSpan{}; }

  // Hands the request to the library. Throws when it does not take it. COMPLETION is released
  // by who gets the answer.
  void submit(rbd_image_t image, rbd_completion_t completion);
  // Throws what the answer, or the lack of one, means. PLACE names the image.
  void check(const std::string& place) const;

 private:
  friend class Flights;
  friend class Image;
  bool decide() { return !decided_.exchange(true); }
  void resume();

  const Kind kind_;
  const uint64_t offset_, length_;
  const bool thick_;
  std::optional<ByteStock::Bytes> bytes_;
  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::time_point::max();
  // Set by the first of the answer and of what gives up waiting, then read by what waits.
  std::atomic<bool> decided_{false};
  int64_t result_ = 0;
  std::exception_ptr error_;
  bool given_up_ = false;
  const void* owner_ = nullptr;
  Worker* worker_ = nullptr;
  std::coroutine_handle<> handle_;
};

// The requests of all images that the library has not answered. The library gets a number for each,
// so that an answer which comes twice, or when nothing waits any more, does no harm.
class Flights {
 public:
  static Flights& all();

  uint64_t add(const std::shared_ptr<Request>& request);
  // Nothing when it is not there any more.
  std::shared_ptr<Request> take(uint64_t number);
  // Ends the waiting for requests of OWNER whose deadline is before NOW.
  void give_up(const void* owner, std::chrono::steady_clock::time_point now, const Error& why);
  // Bytes of requests that nothing waits for any more.
  uint64_t lost_bytes() const { return lost_bytes_.load(std::memory_order_relaxed); }
  // Called by the library.
  static void on_answer(rbd_completion_t completion, void* number);

 private:
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Request>> requests_;
  uint64_t last_ = 0;
  std::atomic<uint64_t> lost_bytes_{0};
};

}  // namespace cairn::rbd
