#include "filter/disk_cache/layout.h"

#include <algorithm>
#include <array>

#include "base/arith.h"
#include "base/crc32c.h"

namespace cairn::disk_cache {
namespace {

constexpr std::string_view kMagic = "CAIRNDC1";
constexpr size_t kKeyDigits = 64;
constexpr size_t kMostNameBytes = 2048, kMostIdentityBytes = 1024;
// Places in the header.
constexpr size_t kChecksumAt = 8, kBitsAt = 12, kLengthAt = 16, kKeyAt = 32, kNameAt = 128,
                 kIdentityAt = kNameAt + kMostNameBytes;

uint32_t checksum_of(ByteSpan header) { return crc32c(header.subspan(kBitsAt)); }

}  // namespace

uint64_t Header::data_offset(uint64_t cluster) const {
  return align_up(time_offset(regions()), uint64_t{1} << kMostClusterBits) +
         (cluster << cluster_bits);
}

uint64_t Header::bytes_of_cluster(uint64_t cluster) const {
  return std::min(cluster_bytes(), length - (cluster << cluster_bits));
}

uint32_t Header::seed() const { return crc32c(bytes_of(key)); }

std::vector<std::byte> Header::encode() const {
  std::vector<std::byte> bytes(kHeaderBytes);
  store_text(bytes, 0, kMagic);
  store_le<uint32_t>(bytes, kBitsAt, cluster_bits);
  store_le<uint64_t>(bytes, kLengthAt, length);
  store_text(bytes, kKeyAt, std::string_view(key).substr(0, kKeyDigits));
  store_text(bytes, kNameAt, std::string_view(name).substr(0, kMostNameBytes - 1));
  store_text(bytes, kIdentityAt, std::string_view(identity).substr(0, kMostIdentityBytes - 1));
  store_le<uint32_t>(bytes, kChecksumAt, checksum_of(bytes));
  return bytes;
}

std::optional<Header> Header::decode(ByteSpan bytes) {
  if (bytes.size() < kHeaderBytes) return std::nullopt;
  bytes = bytes.first(kHeaderBytes);
  if (load_text(bytes, 0, kMagic.size()) != kMagic ||
      load_le<uint32_t>(bytes, kChecksumAt) != checksum_of(bytes))
    return std::nullopt;
  Header header;
  header.cluster_bits = load_le<uint32_t>(bytes, kBitsAt);
  header.length = load_le<uint64_t>(bytes, kLengthAt);
  header.key = load_text(bytes, kKeyAt, kKeyDigits);
  header.name = load_text(bytes, kNameAt, kMostNameBytes);
  header.identity = load_text(bytes, kIdentityAt, kMostIdentityBytes);
  if (header.cluster_bits < kLeastClusterBits || header.cluster_bits > kMostClusterBits ||
      header.length > kMostLength || header.key.size() != kKeyDigits)
    return std::nullopt;
  return header;
}

namespace {

constexpr unsigned kStateShift = 32, kCheckShift = 40;

// 24 bits.
uint64_t check_of(uint64_t low, uint64_t cluster, uint32_t seed) {
  std::array<std::byte, 16> bytes{};
  store_le<uint64_t>(bytes, 0, low);
  store_le<uint64_t>(bytes, 8, cluster);
  return crc32c(bytes, seed) & 0xffffff;
}

}  // namespace

uint64_t Entry::encode(uint64_t cluster, uint32_t seed) const {
  if (state == State::kNone) return 0;
  const uint64_t low = checksum | uint64_t{static_cast<uint8_t>(state)} << kStateShift;
  return low | check_of(low, cluster, seed) << kCheckShift;
}

Entry Entry::decode(uint64_t value, uint64_t cluster, uint32_t seed) {
  const uint64_t low = value & ((uint64_t{1} << kCheckShift) - 1);
  const uint64_t state = low >> kStateShift;
  if (state == 0 || state > 2 || value >> kCheckShift != check_of(low, cluster, seed)) return {};
  return {.state = static_cast<State>(state), .checksum = static_cast<uint32_t>(low)};
}

}  // namespace cairn::disk_cache
