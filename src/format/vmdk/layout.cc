#include "format/vmdk/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/arith.h"
#include "base/fields.h"

namespace cairn::vmdk {
namespace {

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(value));
  return text;
}

bool begins_with(ByteSpan head, std::string_view magic) {
  return head.size() >= magic.size() && std::memcmp(head.data(), magic.data(), magic.size()) == 0;
}

// True when SECTORS sectors at sector OFFSET are inside of the file.
bool inside(uint64_t offset, uint64_t sectors, uint64_t file_bytes) {
  const auto end = checked_add(offset, sectors);
  return end && *end <= div_ceil(file_bytes, kSector);
}

constexpr auto kSparseFields = little_endian_fields(
    Field(4, &SparseHeader::version), Field(8, &SparseHeader::flags),
    Field(12, &SparseHeader::capacity), Field(20, &SparseHeader::grain),
    Field(28, &SparseHeader::descriptor_offset), Field(36, &SparseHeader::descriptor_sectors),
    Field(44, &SparseHeader::entries), Field(48, &SparseHeader::rgd_offset),
    Field(56, &SparseHeader::gd_offset), Field(64, &SparseHeader::overhead),
    Field(77, &SparseHeader::compression));

constexpr auto kCowdFields = little_endian_fields(
    Field(12, &CowdHeader::sectors), Field(16, &CowdHeader::grain),
    Field(20, &CowdHeader::gd_offset), Field(24, &CowdHeader::directory_entries),
    Field(28, &CowdHeader::free_sector));

}  // namespace

bool is_sparse(ByteSpan head) { return begins_with(head, "KDMV"); }
bool is_cowd(ByteSpan head) { return begins_with(head, "COWD"); }
bool is_sesparse(ByteSpan head) {
  return head.size() >= 8 && load_le<uint64_t>(head, 0) == 0xcafebabe;
}

uint64_t SparseHeader::tables() const { return div_ceil(div_ceil(capacity, grain), entries); }
uint64_t SparseHeader::directory_sectors() const { return div_ceil(tables() * 4, kSector); }
uint64_t SparseHeader::table_sectors() const { return div_ceil(uint64_t{entries} * 4, kSector); }

SparseHeader SparseHeader::decode(ByteSpan bytes) {
  if (!is_sparse(bytes)) invalid("Image not in VMDK format");
  SparseHeader header;
  kSparseFields.load(bytes, header);
  header.unclean = bytes[kUncleanOffset] != std::byte{0};
  return header;
}

void SparseHeader::check_sizes(uint64_t file_bytes) const {
  if (version > 3) {
    throw Error(ErrorKind::kUnsupported, "Unsupported VMDK version " + std::to_string(version));
  }
  if (grain == 0 || entries == 0) invalid("L1 entry size is invalid");
  if (grain > kMaxGrainSectors || !is_power_of_two(grain))
    invalid("Invalid granularity, image may be corrupt");
  if (entries > 512) invalid("L2 table size too big");
  if (capacity >= uint64_t{1} << 54)
    throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
  if (tables() > kMaxTables) invalid("L1 size too big");
  if (!inside(overhead, 0, file_bytes)) {
    const auto bytes = checked_mul(overhead, kSector);
    invalid("File truncated, expecting at least " +
            (bytes ? std::to_string(*bytes) : std::to_string(overhead) + " sectors of 512") +
            " bytes");
  }
}

bool SparseHeader::directory_inside(uint64_t file_bytes) const {
  return gd_offset != 0 && inside(gd_offset, directory_sectors(), file_bytes);
}

bool SparseHeader::redundant_inside(uint64_t file_bytes) const {
  return rgd_offset != 0 && inside(rgd_offset, directory_sectors(), file_bytes);
}

void SparseHeader::check(uint64_t file_bytes) const {
  check_sizes(file_bytes);
  if (gd_offset == kGdAtEnd) invalid("Invalid footer");
  if (directory_inside(file_bytes) || (redundant() && redundant_inside(file_bytes))) return;
  invalid(fmt::format(
      "The grain directory (sector {}) is outside the file{}", gd_offset,
      redundant() ? fmt::format(", and so does the redundant one (sector {})", rgd_offset) : ""));
}

void SparseHeader::encode(MutableByteSpan bytes) const {
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  store_text(bytes, 0, "KDMV");
  kSparseFields.store(bytes, *this);
  bytes[kUncleanOffset] = std::byte{unclean};
  store_text(bytes, 73, "\n \r\n");
}

SparseHeader SparseHeader::fresh(uint64_t sectors, bool stream, bool zeroed) {
  SparseHeader header;
  header.capacity = sectors;
  header.version = stream ? 3 : zeroed ? 2 : 1;
  if (zeroed) header.flags |= kFlagZeroedGrain;
  if (stream) {
    header.flags |= kFlagCompressed | kFlagMarkers;
    header.compression = 1;
  }
  const uint64_t one = header.directory_sectors() + header.tables() * header.table_sectors();
  header.rgd_offset = 1 + header.descriptor_sectors;
  header.gd_offset = header.rgd_offset + one;
  header.overhead = align_up(header.gd_offset + one, header.grain);
  if (header.tables() > kMaxTables || header.overhead > UINT32_MAX)
    throw Error(ErrorKind::kTooLarge, "The image size is too large for file format 'vmdk'");
  return header;
}

CowdHeader CowdHeader::decode(ByteSpan bytes, uint64_t file_bytes) {
  CowdHeader header;
  kCowdFields.load(bytes, header);
  if (!is_power_of_two(header.grain) || header.grain > kMaxGrainSectors)
    invalid("Invalid granularity, image may be corrupt");
  const uint64_t needed = div_ceil(header.sectors, uint64_t{kEntries} * header.grain);
  if (header.directory_entries < needed)
    invalid(fmt::format("The grain directory has {} entries, the capacity needs {}",
                        header.directory_entries, needed));
  if (needed > kMaxTables) invalid("L1 size too big");
  if (header.gd_offset < 4 || !inside(header.gd_offset, div_ceil(needed * 4, kSector), file_bytes))
    invalid(fmt::format("The grain directory (sector {}) is outside the file", header.gd_offset));
  return header;
}

SeSparseHeader SeSparseHeader::decode(ByteSpan bytes, uint64_t file_bytes) {
  const auto field = [&](size_t offset) { return load_le<uint64_t>(bytes, offset); };
  if (field(0) != 0xcafebabe) invalid("Bad const header magic: " + hex(field(0)));
  if (field(8) != 0x200000001) invalid("Unsupported version: " + hex(field(8)));
  if (field(24) != kGrainSectors) invalid("Unsupported grain size: " + std::to_string(field(24)));
  if (field(32) != kTableSectors)
    invalid("Unsupported grain table size: " + std::to_string(field(32)));
  if (field(40) != 0) invalid("Unsupported flags: " + hex(field(40)));
  if ((field(48) | field(56) | field(64) | field(72)) != 0)
    invalid("Unsupported reserved bits: " + hex(field(48)) + " " + hex(field(56)) + " " +
            hex(field(64)) + " " + hex(field(72)));
  if (!is_zero(bytes.subspan(208, 304))) invalid("Unsupported non-zero const header padding");
  SeSparseHeader header;
  header.capacity = field(16);
  header.volatile_offset = field(80);
  header.directory_offset = field(128);
  header.directory_sectors = field(136);
  header.tables_offset = field(144);
  header.tables_sectors = field(152);
  header.grains_offset = field(192);
  header.grains_sectors = field(200);
  if (header.capacity >= uint64_t{1} << 54)
    throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
  if (!inside(header.volatile_offset, 1, file_bytes))
    invalid("The volatile header is outside the file");
  const uint64_t needed = div_ceil(header.capacity, kGrainSectors * kEntries);
  if (header.directory_sectors > kMaxTables / 64) invalid("L1 size too big");
  if (header.directory_sectors * 64 < needed ||
      !inside(header.directory_offset, header.directory_sectors, file_bytes))
    invalid("The grain directory is outside the file or is too short");
  if (header.tables_offset > file_bytes / kSector || header.grains_offset > UINT64_MAX / 1024)
    invalid("The grain tables are outside the file");
  return header;
}

void SeSparseHeader::check_volatile(ByteSpan bytes) {
  const auto magic = load_le<uint64_t>(bytes, 0);
  if (magic != 0xcafecafe) invalid("Bad volatile header magic: " + hex(magic));
  if (load_le<uint64_t>(bytes, 24) != 0)
    throw Error(ErrorKind::kUnsupported, "Image is dirty, Replaying journal not supported");
  if (!is_zero(bytes.subspan(32, 480))) invalid("Unsupported non-zero volatile header padding");
}

Marker Marker::decode(ByteSpan bytes) {
  return {.value = load_le<uint64_t>(bytes, 0),
          .bytes = load_le<uint32_t>(bytes, 8),
          .type = load_le<uint32_t>(bytes, 12)};
}

void Marker::encode(MutableByteSpan to) const {
  store_le<uint64_t>(to, 0, value);
  store_le<uint32_t>(to, 8, bytes);
  if (bytes == 0) store_le<uint32_t>(to, 12, type);
}

}  // namespace cairn::vmdk
