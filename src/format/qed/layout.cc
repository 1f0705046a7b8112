#include "format/qed/layout.h"

#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "base/fields.h"

namespace cairn::qed {
namespace {

bool good_cluster_size(uint64_t bytes) {
  return is_power_of_two(bytes) && bytes >= kMinCluster && bytes <= kMaxCluster;
}
bool good_table_size(uint64_t clusters) {
  return is_power_of_two(clusters) && clusters <= kMaxTable;
}

constexpr auto kFields = little_endian_fields(
    Field(4, &Header::cluster_size), Field(8, &Header::table_size), Field(12, &Header::header_size),
    Field(16, &Header::features), Field(24, &Header::compat), Field(32, &Header::autoclear),
    Field(40, &Header::l1_offset), Field(48, &Header::size), Field(56, &Header::backing_offset),
    Field(60, &Header::backing_bytes));

}  // namespace

void check_cluster_size(uint64_t bytes) {
  if (!good_cluster_size(bytes))
    invalid("QED cluster size must be within range [4096, 67108864] and power of 2");
}

void check_table_size(uint64_t clusters) {
  if (!good_table_size(clusters))
    invalid("QED table size must be within range [1, 16] and power of 2");
}

Header Header::decode(ByteSpan bytes, uint64_t file_bytes) {
  if (load_le<uint32_t>(bytes, 0) != kMagic) invalid("Image not in QED format");
  Header header;
  kFields.load(bytes, header);
  if (const uint64_t unknown = header.features & ~kKnownFeatures) {
    char text[64];
    std::snprintf(text, sizeof text, "Unsupported QED features: %llx",
                  static_cast<unsigned long long>(unknown));
    throw Error(ErrorKind::kUnsupported, text);
  }
  if (!good_cluster_size(header.cluster_size)) invalid("QED cluster size is invalid");
  if (!good_table_size(header.table_size)) invalid("QED table size is invalid");
  if (header.size % 512 != 0 || header.size > header.max_size())
    invalid("QED image size is invalid");
  if (!header.valid_table(header.l1_offset, file_bytes)) invalid("QED table offset is invalid");
  if (header.data_begin() > UINT32_MAX) invalid("QED header size is too large");
  if ((header.features & kBackingFile) != 0 &&
      uint64_t{header.backing_offset} + header.backing_bytes > header.data_begin())
    invalid("QED backing filename offset is invalid");
  return header;
}

void Header::encode(MutableByteSpan bytes) const {
  store_le<uint32_t>(bytes, 0, kMagic);
  kFields.store(bytes, *this);
}

uint64_t Header::max_size() const {
  constexpr auto kMost = static_cast<uint64_t>(INT64_MAX);
  return std::min(checked_mul(entries(), table_range()).value_or(kMost), kMost);
}

bool Header::valid_cluster(uint64_t offset, uint64_t file_bytes) const {
  // A file's length counts in sectors; what is left of it after whole clusters is nobody's.
  const uint64_t rounded = checked_add(file_bytes, 511).value_or(UINT64_MAX) / 512 * 512;
  return is_aligned(offset, cluster_size) && offset >= data_begin() &&
         offset < align_down(rounded, cluster_size);
}

bool Header::valid_table(uint64_t offset, uint64_t file_bytes) const {
  const auto last = checked_add(offset, table_bytes() - cluster_size);
  return last && valid_cluster(offset, file_bytes) && valid_cluster(*last, file_bytes);
}

}  // namespace cairn::qed
