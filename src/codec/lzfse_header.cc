#include <numeric>

#include "codec/lzfse.h"

namespace cairn::codec {
namespace {

// The length of the largest header: 360 counts of at most 14 bits after 32 bytes.
constexpr uint32_t kMaxPackedHeader = 32 + (360 * 14 + 7) / 8;

uint32_t bits(uint64_t word, unsigned from, unsigned count) {
  return static_cast<uint32_t>(word >> from & ((uint64_t{1} << count) - 1));
}

// Counts as they are packed: bits from the low end of bytes on, short codes for small numbers.
class PackedCounts {
 public:
  explicit PackedCounts(ByteSpan bytes) : bytes_(bytes) {}

  uint16_t next() {
    fill();
    const auto low = static_cast<uint32_t>(word_);
    if ((low & 1) == 0) return take(2, low >> 1 & 1);
    if ((low & 3) == 1) return take(3, 2 + (low >> 2 & 1));
    if ((low & 7) == 3) return take(5, 4 + (low >> 3 & 3));
    if ((low & 15) == 7) return take(8, 8 + (low >> 4 & 15));
    return take(14, 24 + (low >> 4 & 1023));
  }
  void finish() const {
    if (have_ >= 8 || !bytes_.empty()) damaged("An LZFSE header has the wrong length.");
  }

 private:
  void fill() {
    while (have_ < 14 && !bytes_.empty()) {
      word_ |= uint64_t{static_cast<uint8_t>(bytes_[0])} << have_;
      have_ += 8;
      bytes_ = bytes_.subspan(1);
    }
  }
  uint16_t take(unsigned count, uint32_t value) {
    if (count > have_) damaged("An LZFSE header is cut.");
    word_ >>= count;
    have_ -= count;
    return static_cast<uint16_t>(value);
  }
  ByteSpan bytes_;
  uint64_t word_ = 0;
  unsigned have_ = 0;
};

template <size_t N>
bool sum_fits(const std::array<uint16_t, N>& counts, size_t states) {
  return std::accumulate(counts.begin(), counts.end(), size_t{0}) <= states;
}

}  // namespace

void LzfseHeader::validate() const {
  // No block does more work than what it gives is worth; literals come in fours.
  bool good = literals <= uint64_t{output_bytes} + 3 && triplets <= uint64_t{output_bytes} + 1 &&
              literals <= kMaxLiterals && literals % 4 == 0 && triplets <= kMaxTriplets &&
              literal_bits >= -7 && literal_bits <= 0 && triplet_bits >= -7 && triplet_bits <= 0 &&
              length_state < kLengthStates && match_state < kLengthStates &&
              distance_state < kDistanceStates && sum_fits(length_counts, kLengthStates) &&
              sum_fits(match_counts, kLengthStates) && sum_fits(distance_counts, kDistanceStates) &&
              sum_fits(literal_counts, kLiteralStates);
  for (const uint16_t state : literal_states) good = good && state < kLiteralStates;
  if (!good) damaged("An LZFSE header is damaged.");
}

LzfseHeader LzfseHeader::plain(Input& input) {
  LzfseHeader header;
  header.output_bytes = input.le32();
  input.take(4);  // the payload's length, which the two below give as well
  header.literals = input.le32();
  header.triplets = input.le32();
  header.literal_payload = input.le32();
  header.triplet_payload = input.le32();
  header.literal_bits = static_cast<int32_t>(input.le32());
  for (uint16_t& state : header.literal_states) state = input.le16();
  header.triplet_bits = static_cast<int32_t>(input.le32());
  header.length_state = input.le16();
  header.match_state = input.le16();
  header.distance_state = input.le16();
  for (uint16_t& count : header.length_counts) count = input.le16();
  for (uint16_t& count : header.match_counts) count = input.le16();
  for (uint16_t& count : header.distance_counts) count = input.le16();
  for (uint16_t& count : header.literal_counts) count = input.le16();
  input.take(2);
  header.validate();
  return header;
}

LzfseHeader LzfseHeader::packed(Input& input) {
  LzfseHeader header;
  header.output_bytes = input.le32();
  const ByteSpan words = input.take(24);
  const auto first = load_le<uint64_t>(words, 0);
  const auto second = load_le<uint64_t>(words, 8);
  const auto third = load_le<uint64_t>(words, 16);
  header.literals = bits(first, 0, 20);
  header.literal_payload = bits(first, 20, 20);
  header.triplets = bits(first, 40, 20);
  header.literal_bits = static_cast<int>(bits(first, 60, 3)) - 7;
  for (unsigned i = 0; i < 4; ++i)
    header.literal_states[i] = static_cast<uint16_t>(bits(second, 10 * i, 10));
  header.triplet_payload = bits(second, 40, 20);
  header.triplet_bits = static_cast<int>(bits(second, 60, 3)) - 7;
  const uint32_t header_bytes = bits(third, 0, 32);
  header.length_state = static_cast<uint16_t>(bits(third, 32, 10));
  header.match_state = static_cast<uint16_t>(bits(third, 42, 10));
  header.distance_state = static_cast<uint16_t>(bits(third, 52, 10));
  if (header_bytes < 32 || header_bytes > kMaxPackedHeader)
    damaged("An LZFSE header has the wrong length.");
  if (header_bytes > 32) {
    PackedCounts counts(input.take(header_bytes - 32));
    for (uint16_t& count : header.length_counts) count = counts.next();
    for (uint16_t& count : header.match_counts) count = counts.next();
    for (uint16_t& count : header.distance_counts) count = counts.next();
    for (uint16_t& count : header.literal_counts) count = counts.next();
    counts.finish();
  }
  header.validate();
  return header;
}

}  // namespace cairn::codec
