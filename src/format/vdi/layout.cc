#include "format/vdi/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/arith.h"

namespace cairn::vdi {
namespace {

constexpr std::string_view kText = "<<< QEMU VM Virtual Disk Image >>>\n";
constexpr uint32_t kStructBytes = 384;  // of what begins at byte 72

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void refuse(const std::string& why) {
  throw Error(ErrorKind::kUnsupported, "unsupported VDI image (" + why + ")");
}

void check_size(uint64_t size) {
  if (size > kMaxSize)
    throw Error(ErrorKind::kUnsupported, "Unsupported VDI image size (size is " + hex(size) +
                                             ", max supported is " + hex(kMaxSize) + ")");
}

}  // namespace

Header Header::decode(ByteSpan sector, uint64_t file_bytes, bool snapshots) {
  Header header;
  detail::check_bounds(sector.size(), 0, kHeaderBytes);
  std::copy_n(sector.begin(), kHeaderBytes, header.raw.begin());
  const auto number = [&](size_t offset) { return load_le<uint32_t>(sector, offset); };
  header.size = load_le<uint64_t>(sector, 368);
  check_size(header.size);
  header.size = align_up(header.size, 512);
  if (number(64) != kMagic) {
    char text[64];
    std::snprintf(text, sizeof text, "Image not in VDI format (bad signature %08x)", number(64));
    throw Error(ErrorKind::kInvalid, text);
  }
  if (number(68) != kVersion)
    refuse(fmt::format("version {}.{}", number(68) >> 16, number(68) & 0xffff));
  header.type = number(76);
  header.map_offset = number(340);
  header.data_offset = number(344);
  header.blocks = number(384);
  header.allocated = number(388);
  header.created = Uuid::load_guid(sector, 392);
  header.modified = Uuid::load_guid(sector, 408);
  if (header.map_offset % 512 != 0) refuse("unaligned block map offset " + hex(header.map_offset));
  if (header.data_offset % 512 != 0) refuse("unaligned data offset " + hex(header.data_offset));
  if (number(360) != 512) refuse(fmt::format("sector size {} is not 512", number(360)));
  if (number(376) != kBlockBytes)
    refuse(fmt::format("block size {} is not {}", number(376), kBlockBytes));
  const uint64_t room = uint64_t{header.blocks} * kBlockBytes;
  if (header.size > room)
    refuse(fmt::format("disk size {}, image bitmap has room for {}", header.size, room));
  header.parent = Uuid::load_guid(sector, 424);
  header.parent_modified = Uuid::load_guid(sector, 440);
  const bool snapshot = snapshots && header.type > kStatic;
  if (!snapshot && header.has_parent()) refuse("non-NULL link UUID");
  if (!snapshot && !header.parent_modified.is_null()) refuse("non-NULL parent UUID");
  if (header.blocks > kMaxBlocks)
    refuse(fmt::format("too many blocks {}, max is {}", header.blocks, kMaxBlocks));
  // From here on stricter than QEMU: what is in each other's way would be overwritten.
  if (number(380) != 0)
    refuse(fmt::format("blocks begin with {} bytes of private data", number(380)));
  if (header.type < 1 || header.type > 4) refuse("image type " + std::to_string(header.type));
  const uint64_t map_end = header.map_offset + uint64_t{header.blocks} * 4;
  if (header.map_offset < kHeaderBytes)
    refuse("block map offset " + hex(header.map_offset) + " is in the header");
  if (header.data_offset < map_end)
    refuse("data offset " + hex(header.data_offset) + " is before the end of the block map");
  if (map_end > align_up(file_bytes, 512))
    refuse("the block map ends at " + hex(map_end) + ", past the end of the file");
  return header;
}

void Header::encode(MutableByteSpan sector) const {
  detail::check_bounds(sector.size(), 0, kHeaderBytes);
  std::copy(raw.begin(), raw.end(), sector.begin());
  store_le<uint32_t>(sector, 76, type);
  store_le<uint32_t>(sector, 340, static_cast<uint32_t>(map_offset));
  store_le<uint32_t>(sector, 344, static_cast<uint32_t>(data_offset));
  store_le<uint64_t>(sector, 368, size);
  store_le<uint32_t>(sector, 384, blocks);
  store_le<uint32_t>(sector, 388, allocated);
  created.store_guid(sector, 392);
  modified.store_guid(sector, 408);
}

Header Header::fresh(uint64_t size, bool fixed) {
  check_size(size);
  Header header;
  header.type = fixed ? kStatic : kDynamic;
  header.size = align_up(size, 512);
  header.blocks = static_cast<uint32_t>(div_ceil(header.size, kBlockBytes));
  header.allocated = fixed ? header.blocks : 0;
  header.data_offset = header.map_offset + header.map_bytes();
  header.created = Uuid::random();
  header.modified = Uuid::random();
  const MutableByteSpan raw(header.raw);
  store_text(raw, 0, kText);
  store_le<uint32_t>(raw, 64, kMagic);
  store_le<uint32_t>(raw, 68, kVersion);
  store_le<uint32_t>(raw, 72, kStructBytes);
  store_le<uint32_t>(raw, 360, 512);
  store_le<uint32_t>(raw, 376, static_cast<uint32_t>(kBlockBytes));
  return header;
}

}  // namespace cairn::vdi
