#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace cairn::disk_cache {

// One file of the cache holds what was read of one image. The layout is our own, little endian:
//   0        header, kHeaderBytes long, which says of which image, in which state
//   4096     an entry of 8 bytes for each cluster
//   …        the time of the last use of each region of kRegionClusters, 8 bytes: milliseconds
//            since 1970; 0: nothing is kept of it
//   …        the clusters, each at its own place, in a file with holes
// Nothing of it is trusted for having been written: an entry has a checksum of its own and one of
// its cluster. So no order of writes, and no power loss, makes wrong bytes of it; any number of
// processes may fill one file, as they write the same.

constexpr size_t kHeaderBytes = 4096;
constexpr uint64_t kRegionClusters = 256;
constexpr unsigned kLeastClusterBits = 12, kMostClusterBits = 21;
constexpr uint64_t kMostLength = uint64_t{1} << 46;  // bytes

struct Header {
  unsigned cluster_bits = 16;
  uint64_t length = 0;   // of the image, bytes
  std::string key;       // 64 hexadecimal digits: the image in one state
  std::string name;      // for people; cut when it is long
  std::string identity;  // the same

  uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  uint64_t clusters() const { return (length + cluster_bytes() - 1) >> cluster_bits; }
  uint64_t regions() const { return (clusters() + kRegionClusters - 1) / kRegionClusters; }
  uint64_t entry_offset(uint64_t cluster) const { return kHeaderBytes + 8 * cluster; }
  uint64_t time_offset(uint64_t region) const { return entry_offset(clusters()) + 8 * region; }
  uint64_t data_offset(uint64_t cluster) const;
  // Where the last cluster ends.
  uint64_t file_bytes() const { return data_offset(0) + length; }
  // How long CLUSTER is: the last one may be short.
  uint64_t bytes_of_cluster(uint64_t cluster) const;
  // What the checksums of entries begin with.
  uint32_t seed() const;

  std::vector<std::byte> encode() const;
  // Nothing when BYTES, the beginning of a file, are no header, or one that was damaged.
  static std::optional<Header> decode(ByteSpan bytes);
};

struct Entry {
  enum class State : uint8_t { kNone = 0, kData = 1, kZero = 2 };
  State state = State::kNone;
  uint32_t checksum = 0;  // CRC-32C of the cluster's bytes

  uint64_t encode(uint64_t cluster, uint32_t seed) const;
  // kNone when VALUE was not made for CLUSTER of this file.
  static Entry decode(uint64_t value, uint64_t cluster, uint32_t seed);
};

}  // namespace cairn::disk_cache
