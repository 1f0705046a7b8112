#include "format/vhdx/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "base/arith.h"
#include "base/crc32c.h"
#include "base/fields.h"

namespace cairn::vhdx {

const Uuid kBatRegion = Uuid::parse("2DC27766-F623-4200-9D64-115E9BFD4A08");
const Uuid kMetadataRegion = Uuid::parse("8B7CA206-4790-4B9A-B8FE-575F050F886E");

namespace {

bool begins_with(ByteSpan bytes, size_t at, std::string_view text) {
  return bytes.size() >= at + text.size() &&
         std::equal(text.begin(), text.end(), bytes.begin() + static_cast<ptrdiff_t>(at),
                    [](char a, std::byte b) { return static_cast<std::byte>(a) == b; });
}

// Of BYTES with the field at offset 4 taken as zero.
uint32_t checksum_of(ByteSpan bytes) {
  const std::array<std::byte, 4> none{};
  uint32_t sum = crc32c(bytes.first(4));
  sum = crc32c(none, sum);
  return crc32c(bytes.subspan(8), sum);
}

[[noreturn]] void bad(const std::string& text) {
  throw Error(ErrorKind::kInvalid, "VHDX: " + text);
}

constexpr auto kLogFields =
    little_endian_fields(Field(8, &LogEntry::length), Field(12, &LogEntry::tail),
                         Field(16, &LogEntry::sequence), Field(24, &LogEntry::descriptors),
                         Field(48, &LogEntry::flushed_file), Field(56, &LogEntry::last_file));

}  // namespace

std::optional<Header> Header::decode(ByteSpan bytes) {
  if (bytes.size() != kHeaderBytes || !begins_with(bytes, 0, "head") ||
      load_le<uint32_t>(bytes, 4) != checksum_of(bytes))
    return std::nullopt;
  Header result;
  std::copy(bytes.begin(), bytes.end(), result.raw.begin());
  result.sequence = load_le<uint64_t>(bytes, 8);
  result.file_write = Uuid::load_guid(bytes, 16);
  result.data_write = Uuid::load_guid(bytes, 32);
  result.log_guid = Uuid::load_guid(bytes, 48);
  result.log_version = load_le<uint16_t>(bytes, 64);
  result.version = load_le<uint16_t>(bytes, 66);
  result.log_length = load_le<uint32_t>(bytes, 68);
  result.log_offset = load_le<uint64_t>(bytes, 72);
  return result;
}

void Header::encode(MutableByteSpan bytes) const {
  std::copy(raw.begin(), raw.end(), bytes.begin());
  store_text(bytes, 0, "head");
  store_le<uint64_t>(bytes, 8, sequence);
  file_write.store_guid(bytes, 16);
  data_write.store_guid(bytes, 32);
  log_guid.store_guid(bytes, 48);
  store_le<uint16_t>(bytes, 64, log_version);
  store_le<uint16_t>(bytes, 66, version);
  store_le<uint32_t>(bytes, 68, log_length);
  store_le<uint64_t>(bytes, 72, log_offset);
  store_le<uint32_t>(bytes, 4, checksum_of(bytes.first(kHeaderBytes)));
}

CurrentHeader choose_header(ByteSpan first, ByteSpan second) {
  std::array<std::optional<Header>, 2> headers = {Header::decode(first), Header::decode(second)};
  std::string why;
  for (std::optional<Header>& header : headers) {
    if (!header || header->version == 1) continue;
    why = fmt::format(": version {} is not supported", header->version);
    header.reset();
  }
  if (!headers[0] && !headers[1])
    throw Error(ErrorKind::kInvalid, "No valid VHDX header found" + why);
  if (!headers[0] || !headers[1]) {
    const unsigned slot = headers[0] ? 0 : 1;
    return {*headers[slot], slot, true};
  }
  if (headers[0]->sequence == headers[1]->sequence) {
    if (!std::equal(first.begin(), first.begin() + 80, second.begin()))
      throw Error(
          ErrorKind::kInvalid,
          fmt::format(
              "No valid VHDX header found: both have the sequence number {} and different content",
              headers[0]->sequence));
    return {*headers[0], 0, false};
  }
  const unsigned slot = headers[1]->sequence > headers[0]->sequence ? 1 : 0;
  return {*headers[slot], slot, false};
}

void check_log_place(const Header& header) {
  if (header.log_version != 0)
    bad(fmt::format("log version {} in the header is not supported", header.log_version));
  if (header.log_offset < kMiB || !is_aligned(header.log_offset, kMiB))
    bad(fmt::format("log offset {} in the header is not a multiple of 1 MiB after the first one",
                    header.log_offset));
  if (!is_aligned(header.log_length, kMiB))
    bad(fmt::format("log length {} in the header is not a multiple of 1 MiB", header.log_length));
  if (!checked_add(header.log_offset, header.log_length) ||
      header.log_offset > static_cast<uint64_t>(INT64_MAX) - header.log_length)
    bad(fmt::format("log offset {} in the header is too large", header.log_offset));
  if (!header.log_guid.is_null() && header.log_length == 0)
    bad("the header names a log without length");
}

std::optional<RegionTable> RegionTable::decode(ByteSpan bytes) {
  if (bytes.size() != kTableBytes || !begins_with(bytes, 0, "regi")) return std::nullopt;
  const auto count = load_le<uint32_t>(bytes, 8);
  if (count > kMaxEntries || load_le<uint32_t>(bytes, 4) != checksum_of(bytes)) return std::nullopt;
  RegionTable result;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = 16 + i * 32;
    Region region;
    region.id = Uuid::load_guid(bytes, at);
    region.offset = load_le<uint64_t>(bytes, at + 16);
    region.length = load_le<uint32_t>(bytes, at + 24);
    region.required = (load_le<uint32_t>(bytes, at + 28) & 1) != 0;
    result.regions.push_back(region);
  }
  return result;
}

void RegionTable::encode(MutableByteSpan bytes) const {
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  store_text(bytes, 0, "regi");
  store_le<uint32_t>(bytes, 8, static_cast<uint32_t>(regions.size()));
  for (size_t i = 0; i < regions.size(); ++i) {
    const size_t at = 16 + i * 32;
    regions[i].id.store_guid(bytes, at);
    store_le<uint64_t>(bytes, at + 16, regions[i].offset);
    store_le<uint32_t>(bytes, at + 24, regions[i].length);
    store_le<uint32_t>(bytes, at + 28, regions[i].required ? 1 : 0);
  }
  store_le<uint32_t>(bytes, 4, checksum_of(bytes.first(kTableBytes)));
}

void check_disjoint(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end) {
  if (a < b_end && b < a_end)
    throw Error(ErrorKind::kInvalid,
                fmt::format("VHDX region {}-{} overlaps with region {}-{}", a, a_end, b, b_end));
}

void RegionTable::check(uint64_t file_bytes, const Header& header) const {
  std::set<std::string> seen;
  // Sorted by place, so that neighbours are enough to compare.
  std::vector<std::pair<uint64_t, uint64_t>> places;
  if (header.log_length != 0)
    places.emplace_back(header.log_offset, header.log_offset + header.log_length);
  for (const Region& region : regions) {
    const std::string name = region.id.text();
    if (!seen.insert(name).second) bad("the region " + name + " is there twice");
    if (region.required && region.id != kBatRegion && region.id != kMetadataRegion)
      throw Error(ErrorKind::kUnsupported, "VHDX: the required region " + name + " is not known");
    if (region.offset < kMiB || !is_aligned(region.offset, kMiB) ||
        !is_aligned(region.length, kMiB))
      bad(fmt::format("the region {} of {} bytes at {} is not aligned to 1 MiB", name,
                      region.length, region.offset));
    if (region.offset > file_bytes || region.length > file_bytes - region.offset)
      bad(fmt::format("the region {} of {} bytes at {} extends past the end of the file", name,
                      region.length, region.offset));
    places.emplace_back(region.offset, region.offset + region.length);
  }
  for (const Uuid& id : {kBatRegion, kMetadataRegion})
    if (!seen.contains(id.text()))
      bad(std::string("there is no ") + (id == kBatRegion ? "block allocation table" : "metadata") +
          " region");
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i)
    check_disjoint(places[i].first, places[i].second, places[i - 1].first, places[i - 1].second);
}

const Region& RegionTable::get(const Uuid& id) const {
  for (const Region& region : regions)
    if (region.id == id) return region;
  bad("there is no region " + id.text());
}

Geometry Geometry::of(const Parameters& parameters) {
  Geometry result;
  result.blocks = div_ceil(parameters.size, parameters.block_bytes);
  result.chunk_blocks = (uint64_t{1} << 23) * parameters.logical_sector / parameters.block_bytes;
  if (parameters.has_parent)
    result.entries = result.chunks() * (result.chunk_blocks + 1);
  else if (result.blocks != 0)
    result.entries = result.blocks + (result.blocks - 1) / result.chunk_blocks;
  return result;
}

std::optional<LogEntry> LogEntry::decode(ByteSpan sector) {
  if (!begins_with(sector, 0, "loge")) return std::nullopt;
  LogEntry result;
  result.checksum = load_le<uint32_t>(sector, 4);
  kLogFields.load(sector, result);
  result.guid = Uuid::load_guid(sector, 32);
  return result;
}

void LogEntry::encode(MutableByteSpan sector) const {
  store_text(sector, 0, "loge");
  kLogFields.store(sector, *this);
  guid.store_guid(sector, 32);
}

std::optional<LogDescriptor> LogDescriptor::decode(ByteSpan bytes) {
  LogDescriptor result;
  result.zero = begins_with(bytes, 0, "zero");
  if (!result.zero && !begins_with(bytes, 0, "desc")) return std::nullopt;
  result.trailing = load_le<uint32_t>(bytes, 4);
  result.leading = load_le<uint64_t>(bytes, 8);
  result.length = result.zero ? result.leading : kSectorBytes;
  result.offset = load_le<uint64_t>(bytes, 16);
  result.sequence = load_le<uint64_t>(bytes, 24);
  if (!is_aligned(result.offset, kSectorBytes) || !is_aligned(result.length, kSectorBytes))
    return std::nullopt;
  return result;
}

}  // namespace cairn::vhdx
