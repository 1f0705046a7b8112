#include "format/parallels/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/arith.h"
#include "crypto/hash.h"

namespace cairn::parallels {
namespace {

constexpr std::string_view kOldMagic = "WithoutFreeSpace";
constexpr std::string_view kExtendedMagic = "WithouFreSpacExt";
constexpr uint32_t kVersion = 2;
constexpr uint32_t kHeads = 16;
constexpr uint32_t kSectorsPerTrack = 32;
constexpr uint64_t kMaxExtensionOffset = 0x3fffffffffffff;

constexpr uint64_t kExtensionMagic = 0xab234cef23dcea87;
constexpr uint64_t kBitmapMagic = 0x20385fae252cb34a;
constexpr size_t kSectionHeaderBytes = 24;
constexpr size_t kBitmapHeaderBytes = 32;
constexpr uint64_t kMaxGranularitySectors = uint64_t{1} << 22;

bool has_magic(ByteSpan bytes, std::string_view magic) {
  const ByteSpan wanted = bytes_of(magic);
  return bytes.size() >= wanted.size() && std::equal(wanted.begin(), wanted.end(), bytes.begin());
}

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

BitmapFeature decode_bitmap(ByteSpan data, const Header& header) {
  if (data.size() < kBitmapHeaderBytes)
    invalid(
        fmt::format("Too small Bitmap Feature area in Parallels Format Extension: {} bytes, "
                    "expected at least 32 bytes",
                    data.size()));
  const auto sectors = load_le<uint64_t>(data, 0);
  const uint64_t disk = header.size() / kSector;
  if (sectors != disk)
    invalid(fmt::format("Bitmap size (in sectors) {} differs from disk size in sectors {}", sectors,
                        disk));
  BitmapFeature bitmap;
  std::copy_n(data.begin() + 8, bitmap.id.bytes.size(), bitmap.id.bytes.begin());
  const auto granularity = load_le<uint32_t>(data, 24);
  const auto entries = load_le<uint32_t>(data, 28);
  if (uint64_t{entries} * 8 > data.size() - kBitmapHeaderBytes)
    invalid("Bitmaps feature corrupted: l1 table exceeds extension data_size");
  if (!is_power_of_two(granularity) || granularity > kMaxGranularitySectors)
    invalid(
        fmt::format("Invalid bitmap granularity {} of bitmap {}", granularity, bitmap.id.text()));
  bitmap.granularity = granularity * kSector;
  const uint64_t bytes = div_ceil(div_ceil(disk, granularity), 64) * 8;
  const uint64_t expected = div_ceil(bytes, header.cluster_bytes());
  if (entries != expected)
    invalid(fmt::format(
        "Bitmap table size {} does not correspond to bitmap size and cluster size. Expected {}",
        entries, expected));
  for (size_t i = 0; i < entries; ++i)
    bitmap.table.push_back(load_le<uint64_t>(data, kBitmapHeaderBytes + i * 8));
  return bitmap;
}

}  // namespace

bool is_image(ByteSpan head) {
  return head.size() >= kHeaderBytes &&
         (has_magic(head, kOldMagic) || has_magic(head, kExtendedMagic)) &&
         load_le<uint32_t>(head, 16) == kVersion;
}

Header Header::decode(ByteSpan bytes, uint64_t file_bytes) {
  if (!is_image(bytes) || file_bytes < kHeaderBytes) invalid("Image not in Parallels format");
  Header header;
  header.extended = has_magic(bytes, kExtendedMagic);
  header.heads = load_le<uint32_t>(bytes, 20);
  header.cylinders = load_le<uint32_t>(bytes, 24);
  header.tracks = load_le<uint32_t>(bytes, 28);
  header.entries = load_le<uint32_t>(bytes, 32);
  header.sectors = load_le<uint64_t>(bytes, 36);
  header.in_use = load_le<uint32_t>(bytes, 44);
  header.data_off = load_le<uint32_t>(bytes, 48);
  header.flags = load_le<uint32_t>(bytes, 52);
  header.ext_off = load_le<uint64_t>(bytes, 56);
  if (header.tracks == 0) invalid("Invalid image: Zero sectors per track");
  if (header.tracks > kMaxTracks)
    throw Error(ErrorKind::kTooLarge, "Invalid image: Too big cluster");
  if (header.entries > kMaxEntries) throw Error(ErrorKind::kTooLarge, "Catalog too large");
  if (header.ext_off >= kMaxExtensionOffset) invalid("Invalid image: Too big offset");
  if ((header.extended ? header.sectors : header.sectors & UINT32_MAX) > kMaxSize / kSector)
    throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
  // From here on stricter than QEMU.
  if (header.table_end() > kMaxTableBytes || header.table_end() > align_up(file_bytes, kSector))
    invalid(fmt::format("Invalid image: the block table ends at {}, past the end of the file",
                        header.table_end()));
  if (uint64_t{header.entries} * header.tracks < header.size() / kSector)
    invalid(
        fmt::format("Invalid image: BAT does not cover the disk ({} clusters of {} bytes for {})",
                    header.entries, header.cluster_bytes(), header.size()));
  return header;
}

void Header::encode(MutableByteSpan bytes) const {
  store_text(bytes, 0, extended ? kExtendedMagic : kOldMagic);
  store_le<uint32_t>(bytes, 16, kVersion);
  store_le<uint32_t>(bytes, 20, heads);
  store_le<uint32_t>(bytes, 24, cylinders);
  store_le<uint32_t>(bytes, 28, tracks);
  store_le<uint32_t>(bytes, 32, entries);
  store_le<uint64_t>(bytes, 36, sectors);
  store_le<uint32_t>(bytes, 44, in_use);
  store_le<uint32_t>(bytes, 48, data_off);
  store_le<uint32_t>(bytes, 52, flags);
  store_le<uint64_t>(bytes, 56, ext_off);
}

Header Header::fresh(uint64_t size, uint64_t cluster_bytes) {
  if (cluster_bytes > uint64_t{kMaxTracks} * kSector) invalid("Cluster size is too large");
  cluster_bytes = align_up(cluster_bytes, kSector);
  size = align_up(size, kSector);
  const uint64_t entries = cluster_bytes == 0 ? UINT64_MAX : div_ceil(size, cluster_bytes);
  if (entries > kMaxEntries || kHeaderBytes + 4 * entries > kMaxTableBytes)
    invalid("Image size is too large for this cluster size");
  Header header;
  header.sectors = size / kSector;
  header.tracks = static_cast<uint32_t>(cluster_bytes / kSector);
  header.entries = static_cast<uint32_t>(entries);
  header.cylinders = static_cast<uint32_t>(header.sectors / kHeads / kSectorsPerTrack);
  header.data_off = static_cast<uint32_t>(header.least_data() / kSector);
  return header;
}

uint64_t Header::size() const { return (extended ? sectors : sectors & UINT32_MAX) * kSector; }

uint64_t Header::least_data() const {
  return align_up(table_end(), extended ? cluster_bytes() : kSector);
}

std::optional<uint64_t> Header::data_begin(uint64_t file_bytes) const {
  const uint64_t least = least_data();
  if (data_off == 0 && !extended) return least;
  const uint64_t told = data_off * kSector;
  if (told < least || told > align_up(file_bytes, kSector)) return std::nullopt;
  if (extended && !is_aligned(told, cluster_bytes())) return std::nullopt;
  return told;
}

Extension Extension::decode(ByteSpan cluster, const Header& header, bool skip_unknown) {
  detail::check_bounds(cluster.size(), 0, kSectionHeaderBytes);
  const auto magic = load_le<uint64_t>(cluster, 0);
  if (magic != kExtensionMagic)
    invalid("Wrong parallels Format Extension magic: " + hex(magic) +
            ", expected: " + hex(kExtensionMagic));
  std::array<std::byte, 16> sum;
  digest(HashAlgorithm::kMd5, cluster.subspan(24), {}, sum);
  if (!std::equal(sum.begin(), sum.end(), cluster.begin() + 8))
    invalid("Wrong checksum in Format Extension header. Format extension is corrupted.");
  Extension extension;
  for (uint64_t at = 24;;) {
    const uint64_t rest = cluster.size() - std::min<uint64_t>(at, cluster.size());
    if (rest < kSectionHeaderBytes)
      invalid(
          fmt::format("Can not read feature header, as remaining bytes ({}) in Format Extension is "
                      "less than Feature header size (24)",
                      rest));
    const auto feature = load_le<uint64_t>(cluster, at);
    const auto flags = load_le<uint64_t>(cluster, at + 8);
    const auto bytes = load_le<uint32_t>(cluster, at + 16);
    if (feature == 0) return extension;
    if (flags != 0)
      throw Error(ErrorKind::kUnsupported, "Flags for extension feature are unsupported");
    at += kSectionHeaderBytes;
    if (bytes > cluster.size() - at) invalid("Feature data_size exceedes Format Extension cluster");
    if (feature == kBitmapMagic)
      extension.bitmaps.push_back(decode_bitmap(cluster.subspan(at, bytes), header));
    else if (!skip_unknown)
      invalid("Unknown feature: " + hex(feature));
    at = align_up(at + bytes, 8);
  }
}

}  // namespace cairn::parallels
