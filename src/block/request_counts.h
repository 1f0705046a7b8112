#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace cairn {

enum class RequestKind : uint8_t { kRead, kWrite, kZero, kDiscard, kFlush };
inline constexpr size_t kRequestKinds = 5;
// "read", "write", "zero", "discard", "flush".
std::string_view to_string(RequestKind kind);

// The upper ends of the classes of durations, in nanoseconds; what takes longer is in one class
// more.
inline constexpr std::array<uint64_t, 12> kDurationBounds = {
    25'000,     100'000,     250'000,     1'000'000,     2'500'000,     10'000'000,
    25'000'000, 100'000'000, 250'000'000, 1'000'000'000, 2'500'000'000, 10'000'000'000};
inline constexpr size_t kDurationClasses = kDurationBounds.size() + 1;

// How many requests of a kind have ended, and how.
struct RequestSums {
  uint64_t failed = 0;
  uint64_t bytes = 0;        // of those that succeeded
  uint64_t nanoseconds = 0;  // that all of them took together
  std::array<uint64_t, kDurationClasses> by_duration{};
  uint64_t requests() const;
};

// Counts requests as they end. From any thread: each resident worker has numbers of its own, so
// that workers do not wait for each other.
class RequestCounts {
 public:
  explicit RequestCounts(unsigned workers);

  void add(RequestKind kind, uint64_t bytes, std::chrono::nanoseconds duration, bool succeeded);
  // What was counted so far. A request that ends meanwhile may be in some of the numbers only.
  RequestSums sums(RequestKind kind) const;

 private:
  struct Numbers {
    std::atomic<uint64_t> failed{0}, bytes{0}, nanoseconds{0};
    std::array<std::atomic<uint64_t>, kDurationClasses> by_duration{};
  };
  struct alignas(64) Share {
    std::array<Numbers, kRequestKinds> kinds;
  };
  std::vector<Share> shares_;  // one for each resident worker, and one for all other threads
};

using RequestCountsPtr = std::shared_ptr<RequestCounts>;

// A request that is under way, and counted when it goes out of scope.
class CountedRequest {
 public:
  // COUNTS null: nothing is counted, and no clock is read.
  CountedRequest(RequestCounts* counts, RequestKind kind, uint64_t bytes)
      : counts_(counts), kind_(kind), bytes_(bytes) {
    if (counts_ != nullptr) begin_ = std::chrono::steady_clock::now();
  }
  ~CountedRequest();
  CountedRequest(const CountedRequest&) = delete;

  // Without this call it counts as failed.
  void succeeded() { succeeded_ = true; }

 private:
  RequestCounts* counts_;
  RequestKind kind_;
  bool succeeded_ = false;
  uint64_t bytes_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace cairn
