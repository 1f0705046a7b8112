#pragma once

#include <cstdint>

#include "base/bytes.h"

// The header and the geometry of a QED image, free of I/O. Source: the format's published
// description ("QED: Image format"); docs/formats/qed.md has the fields.
namespace cairn::qed {

inline constexpr uint32_t kMagic = 0x00444551;  // "QED" and NUL
inline constexpr size_t kHeaderBytes = 64;
inline constexpr uint32_t kMinCluster = 4096;
inline constexpr uint32_t kMaxCluster = 64 << 20;
inline constexpr uint32_t kMaxTable = 16;          // clusters
inline constexpr uint32_t kMaxBackingName = 4095;  // bytes

// Bits of Header::features.
inline constexpr uint64_t kBackingFile = 1;  // the fields of the backing file's name count
inline constexpr uint64_t kNeedCheck = 2;    // tables may contradict each other
inline constexpr uint64_t kBackingRaw = 4;   // the backing file is raw and must not be probed
inline constexpr uint64_t kKnownFeatures = kBackingFile | kNeedCheck | kBackingRaw;

// Entries of tables that are no offsets. kZeroCluster is one in L2 tables only.
inline constexpr uint64_t kUnallocated = 0;
inline constexpr uint64_t kZeroCluster = 1;

struct Header {
  uint32_t cluster_size = 65536;  // bytes
  uint32_t table_size = 4;        // clusters of an L1 or L2 table
  uint32_t header_size = 1;       // clusters before anything else
  uint64_t features = 0;
  uint64_t compat = 0;
  uint64_t autoclear = 0;
  uint64_t l1_offset = 0;  // bytes
  uint64_t size = 0;       // virtual size, bytes, a multiple of 512
  uint32_t backing_offset = 0;
  uint32_t backing_bytes = 0;

  // Throws kInvalid or kUnsupported in the order and with the words of QEMU. FILE_BYTES is the
  // length of the file.
  static Header decode(ByteSpan bytes, uint64_t file_bytes);
  void encode(MutableByteSpan bytes) const;

  uint64_t table_bytes() const { return uint64_t{table_size} * cluster_size; }
  uint64_t entries() const { return table_bytes() / 8; }
  // Bytes of the disk that one L2 table describes.
  uint64_t table_range() const { return entries() * cluster_size; }
  // Nothing but the header is below. A header of no clusters takes one all the same.
  uint64_t data_begin() const {
    return uint64_t{header_size == 0 ? 1 : header_size} * cluster_size;
  }
  // The largest virtual size, at most 2^63 - 1.
  uint64_t max_size() const;

  // Whether a cluster, or all of a table, is after the header, at a multiple of the cluster and
  // inside of a file of FILE_BYTES.
  bool valid_cluster(uint64_t offset, uint64_t file_bytes) const;
  bool valid_table(uint64_t offset, uint64_t file_bytes) const;
};

// Throw kInvalid with QEMU's words.
void check_cluster_size(uint64_t bytes);
void check_table_size(uint64_t clusters);

}  // namespace cairn::qed
