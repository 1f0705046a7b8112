#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace cairn {

// What of a disk could not be read. Ranges that touch each other are one; of more than kMostRanges
// only the bytes are counted. Any thread may add.
class LostRanges {
 public:
  static constexpr size_t kMostRanges = 100'000;
  struct Range {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    std::string cause;  // of the first that was added
  };

  // Bytes that were not added before.
  void add(uint64_t offset, uint64_t bytes, const std::string& cause);
  // By offset.
  std::vector<Range> list() const;
  uint64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, Range> ranges_;  // by the offset of their end
  uint64_t bytes_ = 0;
};

}  // namespace cairn
