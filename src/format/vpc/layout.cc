#include "format/vpc/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>

#include "base/arith.h"
#include "base/utf16.h"

namespace cairn::vpc {
namespace {

constexpr std::string_view kFooterCookie = "conectix";
constexpr std::string_view kHeaderCookie = "cxsparse";
constexpr uint32_t kVersion = 0x00010000;
constexpr uint32_t kReservedFeature = 2;
constexpr time_t kEpoch = 946684800;  // 2000-01-01 in Unix time

bool begins_with(ByteSpan bytes, std::string_view cookie) {
  return bytes.size() >= cookie.size() &&
         std::equal(cookie.begin(), cookie.end(), bytes.begin(),
                    [](char a, std::byte b) { return static_cast<std::byte>(a) == b; });
}

Uuid load_uuid(ByteSpan bytes, size_t offset) {
  detail::check_bounds(bytes.size(), offset, 16);
  Uuid result;
  std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), 16, result.bytes.begin());
  return result;
}

void store_uuid(const Uuid& uuid, MutableByteSpan bytes, size_t offset) {
  detail::check_bounds(bytes.size(), offset, 16);
  std::copy(uuid.bytes.begin(), uuid.bytes.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
}

}  // namespace

uint32_t checksum(ByteSpan bytes, size_t checksum_offset) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    if (i < checksum_offset || i >= checksum_offset + 4) sum += std::to_integer<uint32_t>(bytes[i]);
  return ~sum;
}

uint32_t timestamp_of(int64_t time) {
  return static_cast<uint32_t>(std::clamp<int64_t>(time - kEpoch, 0, UINT32_MAX));
}
uint32_t timestamp_now() { return timestamp_of(std::time(nullptr)); }

bool Footer::has_cookie(ByteSpan sector) { return begins_with(sector, kFooterCookie); }

Footer Footer::decode(ByteSpan sector) {
  detail::check_bounds(sector.size(), 0, kFooterBytes);
  sector = sector.first(kFooterBytes);
  Footer footer;
  std::copy(sector.begin(), sector.end(), footer.raw.begin());
  if (load_be<uint32_t>(sector, 64) != checksum(sector, 64))
    throw Error(ErrorKind::kInvalid, "Incorrect header checksum");
  footer.header_offset = load_be<uint64_t>(sector, 16);
  footer.timestamp = load_be<uint32_t>(sector, 24);
  footer.creator.assign(reinterpret_cast<const char*>(sector.data()) + 28, 4);
  footer.original_size = load_be<uint64_t>(sector, 40);
  footer.current_size = load_be<uint64_t>(sector, 48);
  footer.geometry = {load_be<uint16_t>(sector, 56), std::to_integer<uint32_t>(sector[58]),
                     std::to_integer<uint32_t>(sector[59])};
  footer.kind = static_cast<Kind>(load_be<uint32_t>(sector, 60));
  footer.id = load_uuid(sector, 68);
  return footer;
}

void Footer::encode(MutableByteSpan sector) const {
  detail::check_bounds(sector.size(), 0, kFooterBytes);
  sector = sector.first(kFooterBytes);
  std::copy(raw.begin(), raw.end(), sector.begin());
  store_text(sector, 0, kFooterCookie);
  store_be<uint64_t>(sector, 16, header_offset);
  store_be<uint32_t>(sector, 24, timestamp);
  store_text(sector, 28, std::string_view(creator).substr(0, 4));
  store_be<uint64_t>(sector, 40, original_size);
  store_be<uint64_t>(sector, 48, current_size);
  store_be<uint16_t>(sector, 56, static_cast<uint16_t>(geometry.cylinders));
  sector[58] = static_cast<std::byte>(geometry.heads);
  sector[59] = static_cast<std::byte>(geometry.sectors);
  store_be<uint32_t>(sector, 60, static_cast<uint32_t>(kind));
  store_uuid(id, sector, 68);
  store_be<uint32_t>(sector, 64, checksum(sector, 64));
}

Footer Footer::fresh(Kind kind, uint64_t size, Geometry geometry, bool exact) {
  Footer footer;
  footer.kind = kind;
  footer.header_offset = kind == Kind::kFixed ? kNoOffset : kFooterBytes;
  footer.timestamp = timestamp_now();
  footer.creator = exact ? "qem2" : "qemu";
  footer.original_size = footer.current_size = size;
  footer.geometry = geometry;
  footer.id = Uuid::random();
  const MutableByteSpan raw(footer.raw);
  store_be<uint32_t>(raw, 8, kReservedFeature);
  store_be<uint32_t>(raw, 12, kVersion);
  store_be<uint16_t>(raw, 32, 5);
  store_be<uint16_t>(raw, 34, 3);
  store_text(raw, 36, "Wi2k");
  return footer;
}

uint64_t Footer::disk_bytes(SizeRule rule) const {
  const bool by_geometry =
      geometry.total() != kLargest.total() &&
      (rule == SizeRule::kGeometry ||
       (rule == SizeRule::kByCreator && (creator == "vpc " || creator == "qemu")));
  const uint64_t sectors = by_geometry ? geometry.total() : current_size / kSector;
  if (sectors > kMaxSectors) throw Error::system(EFBIG);
  return sectors * kSector;
}

DynamicHeader DynamicHeader::decode(ByteSpan bytes, uint64_t disk_bytes) {
  DynamicHeader header;
  detail::check_bounds(bytes.size(), 0, kHeaderBytes);
  bytes = bytes.first(kHeaderBytes);
  std::copy(bytes.begin(), bytes.end(), header.raw.begin());
  if (!begins_with(bytes, kHeaderCookie)) throw Error(ErrorKind::kInvalid, "Invalid header magic");
  header.table_offset = load_be<uint64_t>(bytes, 16);
  header.entries = load_be<uint32_t>(bytes, 28);
  header.block_bytes = load_be<uint32_t>(bytes, 32);
  header.checksum_good = load_be<uint32_t>(bytes, 36) == checksum(bytes, 36);
  header.parent_id = load_uuid(bytes, 40);
  header.parent_timestamp = load_be<uint32_t>(bytes, 56);
  header.parent_name = from_utf16(bytes.subspan(64, 512), true);
  for (size_t i = 0; i < ParentLocator::kCount; ++i) {
    const size_t at = 576 + i * 24;
    header.locators[i] = {load_be<uint32_t>(bytes, at), load_be<uint32_t>(bytes, at + 4),
                          load_be<uint32_t>(bytes, at + 8), load_be<uint64_t>(bytes, at + 16)};
  }
  if (!is_power_of_two(header.block_bytes) || header.block_bytes < kSector)
    throw Error(ErrorKind::kInvalid, "Invalid block size " + std::to_string(header.block_bytes));
  if (header.entries > kMaxEntries)
    throw Error(ErrorKind::kInvalid, fmt::format("Max Table Entries too large ({})",
                                                 static_cast<int32_t>(header.entries)));
  // Smaller ones leave no room for a bitmap that says something.
  if (header.block_bytes < 4096)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("blocks of {} bytes are not supported", header.block_bytes));
  if (uint64_t{header.entries} * header.block_bytes < disk_bytes)
    throw Error(ErrorKind::kInvalid, "Page table too small");
  return header;
}

void DynamicHeader::encode(MutableByteSpan bytes) const {
  detail::check_bounds(bytes.size(), 0, kHeaderBytes);
  bytes = bytes.first(kHeaderBytes);
  std::copy(raw.begin(), raw.end(), bytes.begin());
  store_text(bytes, 0, kHeaderCookie);
  store_be<uint64_t>(bytes, 8, kNoOffset);
  store_be<uint64_t>(bytes, 16, table_offset);
  store_be<uint32_t>(bytes, 24, kVersion);
  store_be<uint32_t>(bytes, 28, entries);
  store_be<uint32_t>(bytes, 32, block_bytes);
  store_uuid(parent_id, bytes, 40);
  store_be<uint32_t>(bytes, 56, parent_timestamp);
  std::vector<std::byte> name = to_utf16(parent_name, true);
  name.resize(512);
  std::copy(name.begin(), name.end(), bytes.begin() + 64);
  for (size_t i = 0; i < ParentLocator::kCount; ++i) {
    const size_t at = 576 + i * 24;
    store_be<uint32_t>(bytes, at, locators[i].code);
    store_be<uint32_t>(bytes, at + 4, locators[i].space);
    store_be<uint32_t>(bytes, at + 8, locators[i].length);
    store_be<uint64_t>(bytes, at + 16, locators[i].offset);
  }
  store_be<uint32_t>(bytes, 36, checksum(bytes, 36));
}

}  // namespace cairn::vpc
