#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/capability.h"

namespace cairn {

// How often a cache had what it was asked for. From any thread.
struct CacheCounts {
  explicit CacheCounts(std::string cache) : name(std::move(cache)) {}
  const std::string name;  // which one of its node
  std::atomic<uint64_t> hits{0};
  std::atomic<uint64_t> misses{0};  // it was fetched first
};
using CacheCountsPtr = std::shared_ptr<CacheCounts>;

// A node that has caches, and counts how they do.
class CacheReporter {
 public:
  static constexpr CapabilityTag kCapability{"cache-reporter"};

  // Those that the node has or had; several may have one name, and count together. From any thread.
  virtual std::vector<CacheCountsPtr> cache_counts() const = 0;

 protected:
  ~CacheReporter() = default;
};

}  // namespace cairn
