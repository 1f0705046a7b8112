#include "format/qcow/layout.h"

#include <fmt/core.h>

#include "base/arith.h"
#include "base/error.h"
#include "base/fields.h"

namespace cairn::qcow {
namespace {

[[noreturn]] void refuse(ErrorKind kind, const std::string& text) { throw Error(kind, text); }

bool touches(uint64_t begin, uint64_t length, uint64_t other, uint64_t other_length) {
  return length != 0 && other_length != 0 && begin < other + other_length && other < begin + length;
}

constexpr auto kFields = big_endian_fields(
    Field(8, &Header::backing_offset), Field(16, &Header::backing_bytes), Field(24, &Header::size),
    Field(32, &Header::cluster_bits), Field(33, &Header::l2_bits), Field(36, &Header::crypt_method),
    Field(40, &Header::l1_offset));

}  // namespace

uint64_t Header::l1_entries() const { return div_ceil(size, l2_range()); }

Header Header::decode(ByteSpan bytes, const std::string& filename) {
  if (bytes.size() < kHeaderBytes || load_be<uint32_t>(bytes, 0) != kMagic)
    refuse(ErrorKind::kInvalid, "Image not in qcow format");
  const auto version = load_be<uint32_t>(bytes, 4);
  if (version != 1) {
    Error error(ErrorKind::kUnsupported,
                "qcow (v1) does not support qcow version " + std::to_string(version));
    if (version == 2 || version == 3) error.hint("Try the 'qcow2' driver instead.");
    throw error;
  }
  Header header;
  kFields.load(bytes, header);
  if (header.size <= 1)
    refuse(ErrorKind::kInvalid, "Image size is too small (must be at least 2 bytes)");
  if (header.cluster_bits < 9 || header.cluster_bits > 16)
    refuse(ErrorKind::kInvalid, "Cluster size must be between 512 and 64k");
  if (header.l2_bits < 6 || header.l2_bits > 13)
    refuse(ErrorKind::kInvalid, "L2 table size must be between 512 and 64k");
  if (header.crypt_method > kAes)
    refuse(ErrorKind::kInvalid, "invalid encryption method in qcow header");
  if (header.size > UINT64_MAX - header.l2_range() || header.l1_entries() > kMostL1Entries)
    refuse(ErrorKind::kInvalid, "Image too large");
  const uint64_t table = header.l1_entries() * 8;
  if (table > kMostL1Bytes || header.l1_offset > INT64_MAX - table)
    throw Error::system(EIO, "Could not open '" + filename + "'");
  if (header.l1_offset < kHeaderBytes)
    refuse(ErrorKind::kInvalid,
           fmt::format("the L1 table at {} overlaps the header", header.l1_offset));
  if (header.backing_offset != 0 && header.backing_bytes > kMostName)
    refuse(ErrorKind::kInvalid, "Backing file name too long");
  return header;
}

void Header::encode(MutableByteSpan bytes) const {
  store_be<uint32_t>(bytes, 0, kMagic);
  store_be<uint32_t>(bytes, 4, 1);
  kFields.store(bytes, *this);
}

Header Header::fresh(uint64_t size, const std::string& name) {
  if (size == 0) refuse(ErrorKind::kInvalid, "Image size is too small, cannot be zero length");
  if (name.size() > kMostName) refuse(ErrorKind::kInvalid, "Backing file name too long");
  Header header;
  header.size = size;
  if (!name.empty()) {
    header.backing_offset = kHeaderBytes;
    header.backing_bytes = static_cast<uint32_t>(name.size());
    // Little is copied up by a write.
    header.cluster_bits = 9;
    header.l2_bits = 12;
  }
  if (size > UINT64_MAX - header.l2_range() || header.l1_entries() * 8 > kMostL1Bytes)
    refuse(ErrorKind::kTooLarge, "Image too large");
  header.l1_offset = align_up(kHeaderBytes + name.size(), 8);
  return header;
}

bool Header::overlaps(uint64_t offset, uint64_t length) const {
  return touches(offset, length, 0, kHeaderBytes) ||
         (backing_offset != 0 && touches(offset, length, backing_offset, backing_bytes)) ||
         touches(offset, length, l1_offset, l1_entries() * 8);
}

CompressedPlace CompressedPlace::decode(uint64_t entry, unsigned cluster_bits) {
  const unsigned shift = 63 - cluster_bits;
  const uint64_t mask = (uint64_t{1} << cluster_bits) - 1;
  return {.offset = entry & ((uint64_t{1} << shift) - 1), .length = (entry >> shift) & mask};
}

uint64_t CompressedPlace::encode(unsigned cluster_bits) const {
  const unsigned shift = 63 - cluster_bits;
  if ((offset >> shift) != 0) return 0;
  return kFlag | (length << shift) | offset;
}

}  // namespace cairn::qcow
