#include "format/dmg/layout.h"

#include <fmt/core.h>

#include "base/arith.h"
#include "base/fields.h"

namespace cairn::dmg {
namespace {

constexpr uint32_t kTableMagic = 0x6d697368;  // "mish"
constexpr size_t kTableHeaderBytes = 204;
constexpr size_t kChunkBytes = 40;

void check_region(const char* what, uint64_t offset, uint64_t bytes, uint64_t end) {
  if (offset >= end || bytes > end - offset)
    invalid(
        fmt::format("UDIF trailer: the {} ({} bytes at {}) is not before the trailer at byte {}",
                    what, bytes, offset, end));
}

constexpr auto kTrailerFields =
    big_endian_fields(Field(0x18, &Trailer::data_offset), Field(0x28, &Trailer::resource_offset),
                      Field(0x30, &Trailer::resource_bytes), Field(0x3c, &Trailer::segments),
                      Field(0xd8, &Trailer::plist_offset), Field(0xe0, &Trailer::plist_bytes),
                      Field(0x1ec, &Trailer::sectors));

}  // namespace

Window trailer_window(uint64_t file_bytes) {
  constexpr uint64_t kBefore = 2 * kSector - 1;
  const uint64_t end = align_up(file_bytes, kSector);
  Window window;
  window.offset = end > kBefore ? end - kBefore : 0;
  window.bytes = std::min<uint64_t>(end - window.offset, kSector + 3);
  return window;
}

Trailer Trailer::decode(ByteSpan bytes, uint64_t offset) {
  Trailer trailer;
  kTrailerFields.load(bytes, trailer);
  if (trailer.data_offset > offset)
    invalid(
        fmt::format("UDIF trailer: the data fork begins at byte {}, after the trailer at byte {}",
                    trailer.data_offset, offset));
  check_region("resource fork", trailer.resource_offset, trailer.resource_bytes, offset);
  check_region("property list", trailer.plist_offset, trailer.plist_bytes, offset);
  if (trailer.sectors >> 63 != 0)
    invalid(fmt::format("UDIF trailer: the disk cannot have {} sectors", trailer.sectors));
  if (trailer.sectors > kMaxDiskBytes / kSector)
    throw Error::system(EFBIG, "Could not refresh total sector count");
  if (trailer.resource_bytes == 0) {
    if (trailer.plist_bytes == 0)
      invalid("UDIF trailer: there is neither a property list nor a resource fork");
    if (trailer.plist_bytes > kMaxPlistBytes)
      invalid(fmt::format("UDIF trailer: the property list of {} bytes is larger than max ({})",
                          trailer.plist_bytes, kMaxPlistBytes));
  }
  if (trailer.segments > 1)
    invalid(fmt::format(
        "this is one of {} segments of an image; join them first, for example with hdiutil",
        trailer.segments));
  return trailer;
}

bool is_zero(ChunkType type) { return type == ChunkType::kZero || type == ChunkType::kIgnore; }

bool is_known(ChunkType type) {
  return is_zero(type) || type == ChunkType::kRaw ||
         (type >= ChunkType::kAdc && type <= ChunkType::kXz);
}

std::optional<BlockTable> BlockTable::decode(ByteSpan bytes) {
  if (bytes.size() < kTableHeaderBytes + kChunkBytes || load_be<uint32_t>(bytes, 0) != kTableMagic)
    return std::nullopt;
  BlockTable table;
  table.first_sector = load_be<uint64_t>(bytes, 8);
  table.data_start = load_be<uint64_t>(bytes, 24);
  table.claimed = load_be<uint32_t>(bytes, 200);
  const size_t count = (bytes.size() - kTableHeaderBytes) / kChunkBytes;
  table.chunks.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const ByteSpan entry = bytes.subspan(kTableHeaderBytes + i * kChunkBytes, kChunkBytes);
    Chunk chunk;
    chunk.type = static_cast<ChunkType>(load_be<uint32_t>(entry, 0));
    chunk.first_sector = load_be<uint64_t>(entry, 8);
    chunk.sectors = load_be<uint64_t>(entry, 16);
    chunk.offset = load_be<uint64_t>(entry, 24);
    chunk.bytes = load_be<uint64_t>(entry, 32);
    if (is_known(chunk.type)) {
      if (!is_zero(chunk.type) && chunk.sectors > kMaxChunkSectors)
        invalid(fmt::format("sector count {} for chunk {} is larger than max ({})", chunk.sectors,
                            i, kMaxChunkSectors));
      if (chunk.bytes > kMaxStoredBytes)
        invalid(fmt::format("length {} for chunk {} is larger than max ({})", chunk.bytes, i,
                            kMaxStoredBytes));
    }
    table.chunks.push_back(chunk);
  }
  return table;
}

uint64_t fork_extent(ByteSpan header, uint64_t fork_bytes) {
  const uint64_t offset = load_be<uint32_t>(header, 0);
  const uint64_t bytes = load_be<uint32_t>(header, 8);
  if (offset > fork_bytes || bytes > fork_bytes - offset)
    invalid(fmt::format("resource fork: its data ({} bytes at {}) is not inside of its {} bytes",
                        bytes, offset, fork_bytes));
  if (bytes == 0) invalid("resource fork: it has no data");
  if (bytes > kMaxForkBytes)
    invalid(fmt::format("resource fork: its data of {} bytes is larger than max ({})", bytes,
                        kMaxForkBytes));
  return offset + bytes;
}

void each_record(ByteSpan fork, const std::function<void(ByteSpan)>& record) {
  const uint64_t end = fork_extent(fork, fork.size());
  ByteSpan left = fork.first(end).subspan(load_be<uint32_t>(fork, 0));
  while (!left.empty()) {
    const std::string place =
        "resource fork: the record at byte " + std::to_string(end - left.size());
    if (left.size() < 4) invalid(place + " is cut");
    const auto bytes = load_be<uint32_t>(left, 0);
    left = left.subspan(4);
    if (bytes == 0 || bytes > left.size())
      invalid(fmt::format("{} has {} bytes; {} are left", place, bytes, left.size()));
    record(left.first(bytes));
    left = left.subspan(bytes);
  }
}

}  // namespace cairn::dmg
