#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"

namespace cairn {

class Node;

// A part of a disk that its partition table names.
struct Partition {
  unsigned number = 0;  // as Linux counts: from 1; logical ones from 5
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes, not 0; the partition is within the disk
  std::string type;     // for people: "Linux" or the type's number
  std::string name;     // of GPT and APM, without control characters; may be empty
};

struct PartitionTable {
  std::string_view scheme;  // "MBR", "GPT" or "APM"
  uint32_t sector_bytes = 512;
  std::vector<Partition> partitions;  // by number
  std::vector<std::string> warnings;  // what was left out, or read from a copy
};

// Where the bytes of a disk come from.
class PartitionSource {
 public:
  virtual ~PartitionSource() = default;
  virtual uint64_t length() const = 0;  // bytes
  // Fills OUT from OFFSET on; the range is within the disk.
  virtual Task<void> read(uint64_t offset, MutableByteSpan out) = 0;
};

// Reads the table of a disk: GPT (from its copy at the end when the first one is damaged), or MBR
// with its chain of logical partitions, or an Apple partition map. Every number is checked against
// the disk and the format's limits; partitions that leave the disk are left out with a warning.
// Throws kInvalid when there is no table, kCorrupt when there is one that cannot be used.
Task<PartitionTable> read_partitions(PartitionSource& source);
Task<PartitionTable> read_partitions(Node& node);

// --- the structures by themselves ---

struct MbrEntry {
  uint8_t status = 0;
  uint8_t type = 0;    // 0: none
  uint32_t first = 0;  // sectors
  uint32_t count = 0;  // sectors
  bool used() const { return type != 0 && count != 0; }
  bool extended() const { return type == 0x05 || type == 0x0f || type == 0x85; }
};

// The first sector of a disk or of a link of the chain.
struct Mbr {
  static constexpr size_t kBytes = 512;
  std::array<MbrEntry, 4> entries;
  // Nothing without the signature, or when the entries cannot be such (a boot sector of a file
  // system looks alike).
  static std::optional<Mbr> decode(ByteSpan sector);
};

struct GptHeader {
  uint64_t own_sector = 0, other_sector = 0;
  uint64_t first_usable = 0, last_usable = 0;
  uint64_t entries_sector = 0;
  uint32_t entry_count = 0, entry_bytes = 0;
  uint32_t entries_crc = 0;
  // Nothing when the signature is missing. Throws kCorrupt that says what is wrong.
  static std::optional<GptHeader> decode(ByteSpan sector);
  // Throws kCorrupt when it cannot be the header in sector OWN of a disk of SECTORS.
  void validate(uint64_t own, uint64_t sectors, uint32_t sector_bytes) const;
  uint64_t table_bytes() const { return uint64_t{entry_count} * entry_bytes; }
};

struct GptEntry {
  std::array<uint8_t, 16> type{};
  uint64_t first = 0, last = 0;  // sectors
  std::string name;
  bool used() const;
  static GptEntry decode(ByteSpan bytes);
};

}  // namespace cairn
