#include "export/vhost_user/wire.h"

#include <algorithm>

#include "base/error.h"

namespace cairn::vhost_user {

Header Header::decode(ByteSpan bytes) {
  return {.type = load_le<uint32_t>(bytes, 0),
          .flags = load_le<uint32_t>(bytes, 4),
          .size = load_le<uint32_t>(bytes, 8)};
}

void Header::encode(MutableByteSpan out) const {
  store_le<uint32_t>(out, 0, type);
  store_le<uint32_t>(out, 4, flags);
  store_le<uint32_t>(out, 8, size);
}

VringState VringState::decode(ByteSpan payload) {
  return {.index = load_le<uint32_t>(payload, 0), .number = load_le<uint32_t>(payload, 4)};
}

VringAddresses VringAddresses::decode(ByteSpan payload) {
  return {.index = load_le<uint32_t>(payload, 0),
          .flags = load_le<uint32_t>(payload, 4),
          .descriptors = load_le<uint64_t>(payload, 8),
          .used = load_le<uint64_t>(payload, 16),
          .available = load_le<uint64_t>(payload, 24),
          .log = load_le<uint64_t>(payload, 32)};
}

MemoryRegion MemoryRegion::decode(ByteSpan bytes) {
  return {.guest_address = load_le<uint64_t>(bytes, 0),
          .size = load_le<uint64_t>(bytes, 8),
          .user_address = load_le<uint64_t>(bytes, 16),
          .file_offset = load_le<uint64_t>(bytes, 24)};
}

std::vector<MemoryRegion> decode_regions(ByteSpan payload) {
  const auto count = load_le<uint32_t>(payload, 0);
  if (count > kMostRegionsInMessage || 8 + count * MemoryRegion::kBytes > payload.size())
    invalid("memory table with too many regions");
  std::vector<MemoryRegion> regions;
  for (uint32_t i = 0; i < count; ++i)
    regions.push_back(
        MemoryRegion::decode(payload.subspan(8 + i * MemoryRegion::kBytes, MemoryRegion::kBytes)));
  return regions;
}

MemoryRegion decode_single_region(ByteSpan payload) {
  if (payload.size() < 8 + MemoryRegion::kBytes) invalid("memory region that is cut short");
  return MemoryRegion::decode(payload.subspan(8));
}

LogArea LogArea::decode(ByteSpan payload) {
  return {.size = load_le<uint64_t>(payload, 0), .offset = load_le<uint64_t>(payload, 8)};
}

ConfigRange ConfigRange::decode(ByteSpan payload) {
  const ConfigRange range{.offset = load_le<uint32_t>(payload, 0),
                          .size = load_le<uint32_t>(payload, 4),
                          .flags = load_le<uint32_t>(payload, 8)};
  if (range.size > kMostBytes || range.size > payload.size() - kHeaderBytes ||
      range.offset > kMostBytes - range.size)
    invalid("configuration space that is too long");
  return range;
}

InflightArea InflightArea::decode(ByteSpan payload) {
  return {.size = load_le<uint64_t>(payload, 0),
          .offset = load_le<uint64_t>(payload, 8),
          .queues = load_le<uint16_t>(payload, 16),
          .queue_size = load_le<uint16_t>(payload, 18)};
}

void InflightArea::encode(MutableByteSpan out) const {
  store_le<uint64_t>(out, 0, size);
  store_le<uint64_t>(out, 8, offset);
  store_le<uint16_t>(out, 16, queues);
  store_le<uint16_t>(out, 18, queue_size);
  store_le<uint32_t>(out, 20, 0);
}

uint64_t decode_u64(ByteSpan payload) { return load_le<uint64_t>(payload, 0); }

void BlockConfig::encode(MutableByteSpan out) const {
  constexpr uint32_t kMostSegments = 126;
  std::fill(out.begin(), out.end(), std::byte{0});
  store_le<uint64_t>(out, 0, capacity);
  store_le<uint32_t>(out, 12, kMostSegments);
  store_le<uint32_t>(out, 20, block_bytes);
  store_le<uint16_t>(out, 26, 1);  // least and best size of a request, blocks
  store_le<uint32_t>(out, 28, 1);
  store_le<uint8_t>(out, kWceOffset, write_cache);
  store_le<uint16_t>(out, 34, queues);
  store_le<uint32_t>(out, 36, kMostSectors);  // discards: length, ranges, alignment
  store_le<uint32_t>(out, 40, 1);
  store_le<uint32_t>(out, 44, static_cast<uint32_t>(block_bytes / kSectorBytes));
  store_le<uint32_t>(out, 48, kMostSectors);  // writes of zeroes: length, ranges
  store_le<uint32_t>(out, 52, 1);
}

RequestHeader RequestHeader::decode(ByteSpan bytes) {
  return {.type = load_le<uint32_t>(bytes, 0), .sector = load_le<uint64_t>(bytes, 8)};
}

DiscardSegment DiscardSegment::decode(ByteSpan bytes) {
  return {.sector = load_le<uint64_t>(bytes, 0),
          .sectors = load_le<uint32_t>(bytes, 8),
          .flags = load_le<uint32_t>(bytes, 12)};
}

}  // namespace cairn::vhost_user
