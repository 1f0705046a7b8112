#include "format/bochs/layout.h"

#include <fmt/core.h>

#include <optional>
#include <string>

#include "base/arith.h"

namespace cairn::bochs {
namespace {

constexpr uint32_t kVersion1 = 0x00010000;
constexpr uint32_t kVersion2 = 0x00020000;

std::optional<Kind> kind_of(ByteSpan head) {
  if (head.size() < kHeaderBytes || load_text(head, 0, 32) != "Bochs Virtual HD Image" ||
      load_text(head, 32, 16) != "Redolog")
    return std::nullopt;
  const auto version = load_le<uint32_t>(head, 64);
  if (version != kVersion1 && version != kVersion2) return std::nullopt;
  const std::string subtype = load_text(head, 48, 16);
  if (subtype == "Growing") return Kind::kGrowing;
  if (subtype == "Undoable") return Kind::kUndoable;
  if (subtype == "Volatile") return Kind::kVolatile;
  return std::nullopt;
}

}  // namespace

bool Header::recognises(ByteSpan head, bool all_kinds) {
  const auto kind = kind_of(head);
  return kind && (all_kinds || *kind == Kind::kGrowing);
}

Header Header::decode(ByteSpan sector, uint64_t file_bytes, bool all_kinds) {
  if (!recognises(sector, all_kinds)) invalid("Image not in Bochs format");
  Header header;
  header.kind = *kind_of(sector);
  header.header_bytes = load_le<uint32_t>(sector, 68);
  header.entries = load_le<uint32_t>(sector, 72);
  header.bitmap_bytes = load_le<uint32_t>(sector, 76);
  header.extent_bytes = load_le<uint32_t>(sector, 80);
  // Version 1 has no time stamp before the size.
  const bool old = load_le<uint32_t>(sector, 64) == kVersion1;
  header.size = align_down(load_le<uint64_t>(sector, old ? 84 : 88), kSector);
  const std::string extent = std::to_string(header.extent_bytes);
  if (header.entries > kMaxCatalog) throw Error(ErrorKind::kTooLarge, "Catalog size is too large");
  if (header.extent_bytes < kSector) invalid("Extent size must be at least 512");
  if (!is_power_of_two(header.extent_bytes))
    invalid("Extent size " + extent + " is not a power of two");
  if (header.extent_bytes > kMaxExtentBytes) invalid("Extent size " + extent + " is too large");
  if (header.entries < div_ceil(header.size, header.extent_bytes))
    invalid("Catalog size is too small for this disk size");
  // From here on stricter than QEMU.
  if (header.header_bytes < kHeaderBytes)
    invalid(fmt::format("Header size {} is less than 512", header.header_bytes));
  const uint64_t sectors = header.extent_bytes / kSector;
  if (uint64_t{header.bitmap_bytes} * 8 < sectors || header.bitmap_bytes > header.extent_bytes)
    invalid(fmt::format("Bitmap size {} does not fit extents of {} bytes", header.bitmap_bytes,
                        extent));
  if (header.data_begin() > file_bytes)
    invalid(fmt::format("The catalog ends at {}, past the end of the file", header.data_begin()));
  return header;
}

}  // namespace cairn::bochs
