#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "codec/window.h"

// Parts of the LZFSE decoder; docs/formats/dmg.md, "LZFSE", describes the stream.
namespace cairn::codec {

inline constexpr size_t kLengthSymbols = 20;  // of literal runs and of matches
inline constexpr size_t kDistanceSymbols = 64;
inline constexpr size_t kLiteralSymbols = 256;
inline constexpr size_t kLengthStates = 64;
inline constexpr size_t kDistanceStates = 256;
inline constexpr size_t kLiteralStates = 1024;
inline constexpr uint32_t kMaxLiterals = 40000;
inline constexpr uint32_t kMaxTriplets = 10000;

// The header of a block of entropy-coded data ("bvx1", "bvx2"), after its magic.
struct LzfseHeader {
  uint32_t output_bytes = 0;
  uint32_t literals = 0;
  uint32_t triplets = 0;
  uint32_t literal_payload = 0;  // bytes
  uint32_t triplet_payload = 0;  // bytes
  int literal_bits = 0;          // -7 … 0: bits of the last byte that do not count
  int triplet_bits = 0;
  std::array<uint16_t, 4> literal_states{};
  uint16_t length_state = 0, match_state = 0, distance_state = 0;
  std::array<uint16_t, kLengthSymbols> length_counts{};
  std::array<uint16_t, kLengthSymbols> match_counts{};
  std::array<uint16_t, kDistanceSymbols> distance_counts{};
  std::array<uint16_t, kLiteralSymbols> literal_counts{};

  // Take the header from INPUT, which is after the magic. Throw kCorrupt when it breaks a
  // rule.
  static LzfseHeader plain(Input& input);   // bvx1
  static LzfseHeader packed(Input& input);  // bvx2

 private:
  void validate() const;
};

// Decodes a whole LZVN payload, which must end with its end code and give OUTPUT_BYTES.
void decode_lzvn(Input input, size_t output_bytes, Window& window);

}  // namespace cairn::codec
