#include "block/apple_partitions.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"

namespace cairn {
namespace {

constexpr size_t kEntryBytes = 512;
constexpr uint32_t kMostMapEntries = 256;

bool has_mark(ByteSpan block, std::string_view mark) { return load_text(block, 0, 2) == mark; }

// A field of an entry, without what a terminal would act on.
std::string map_text(ByteSpan entry, size_t offset) {
  std::string text = load_text(entry, offset, 32);
  std::replace_if(
      text.begin(), text.end(),
      [](char c) {
        return static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126;
      },
      '?');
  return text;
}

// The map whose first entry is in block 1 when blocks have BLOCK_BYTES.
Task<std::optional<PartitionTable>> read_map(PartitionSource& source, uint32_t block_bytes) {
  PartitionTable table;
  table.scheme = "APM";
  table.sector_bytes = block_bytes;
  std::vector<std::byte> entry(kEntryBytes);
  uint32_t count = 1;
  for (uint32_t number = 1; number <= count; ++number) {
    const uint64_t at = uint64_t{number} * block_bytes;
    if (at + kEntryBytes > source.length()) {
      if (number == 1) co_return std::nullopt;
      table.warnings.push_back("the partition map extends past the end of the disk");
      break;
    }
    co_await source.read(at, entry);
    if (!has_mark(entry, "PM")) {
      if (number == 1) co_return std::nullopt;
      table.warnings.push_back(fmt::format("entry {} of the partition map is damaged", number));
      continue;
    }
    if (number == 1) {
      const auto entries = load_be<uint32_t>(entry, 4);
      count = std::min(entries, kMostMapEntries);
      if (entries > count) table.warnings.push_back("partitions after the first 256 are left out");
    }
    const uint64_t offset = uint64_t{load_be<uint32_t>(entry, 8)} * block_bytes;
    const uint64_t length = uint64_t{load_be<uint32_t>(entry, 12)} * block_bytes;
    if (length == 0) continue;
    if (offset == 0 || offset + length > source.length()) {
      table.warnings.push_back(
          fmt::format("partition {} is left out: it is not within the disk", number));
      continue;
    }
    table.partitions.push_back({.number = number,
                                .offset = offset,
                                .length = length,
                                .type = map_text(entry, 48),
                                .name = map_text(entry, 16)});
  }
  co_return table;
}

}  // namespace

Task<std::optional<PartitionTable>> read_apple_partitions(PartitionSource& source) {
  if (source.length() < 2 * kEntryBytes) co_return std::nullopt;
  std::vector<std::byte> start(kEntryBytes);
  co_await source.read(0, start);
  if (!has_mark(start, "ER")) co_return std::nullopt;
  // CDs may name blocks of 2048 bytes and have a map for blocks of 512 bytes as well.
  const uint32_t named = load_be<uint16_t>(start, 2);
  for (const uint32_t block_bytes : {named, uint32_t{512}, uint32_t{2048}}) {
    if (block_bytes < 512 || !is_power_of_two(block_bytes)) continue;
    std::optional<PartitionTable> table = co_await read_map(source, block_bytes);
    if (table) co_return table;
  }
  co_return std::nullopt;
}

}  // namespace cairn
