#include "codec/lzfse.h"

#include "codec/stream.h"

namespace cairn::codec {
namespace {

constexpr uint32_t magic(char kind) {
  return 'b' | 'v' << 8 | 'x' << 16 | static_cast<uint32_t>(kind) << 24;
}

// Bits of a payload, the last ones first: it is one little-endian number that is read from its top.
class BackwardBits {
 public:
  BackwardBits(ByteSpan payload, int remainder) : payload_(payload) {
    const int64_t bits = static_cast<int64_t>(payload.size()) * 8 + remainder;
    if (bits < 0) damaged("An LZFSE payload is cut.");
    left_ = static_cast<size_t>(bits);
    if (remainder != 0 && static_cast<uint8_t>(payload.back()) >> (8 + remainder) != 0)
      damaged("An LZFSE payload is damaged.");
  }

  // COUNT is at most 32.
  uint32_t take(unsigned count) {
    if (count > left_) damaged("An LZFSE payload is cut.");
    left_ -= count;
    const size_t at = left_ / 8;
    uint64_t word = 0;
    std::memcpy(&word, payload_.data() + at, std::min<size_t>(8, payload_.size() - at));
    return static_cast<uint32_t>(detail::swap_if(word, std::endian::little) >> left_ % 8 &
                                 ((uint64_t{1} << count) - 1));
  }

 private:
  ByteSpan payload_;
  size_t left_ = 0;
};

struct State {
  uint8_t bits = 0;    // to read for the next state
  uint8_t extra = 0;   // to read for the value, after them
  uint16_t next = 0;   // to which the bits are added
  uint32_t value = 0;  // to which the extra bits are added
};

struct Value {
  uint8_t extra = 0;
  uint32_t base = 0;
};

// The values of symbols of which number I has EXTRA(I) bits: each begins where the one before ends.
template <size_t N, class F>
constexpr std::array<Value, N> values(F extra) {
  std::array<Value, N> result{};
  uint32_t base = 0;
  for (size_t i = 0; i < N; ++i) {
    result[i] = {static_cast<uint8_t>(extra(i)), base};
    base += uint32_t{1} << result[i].extra;
  }
  return result;
}
constexpr unsigned kLengthExtra[] = {2, 3, 5, 8};
constexpr unsigned kMatchExtra[] = {3, 5, 8, 11};
constexpr auto kLengths =
    values<kLengthSymbols>([](size_t i) { return i < 16 ? 0 : kLengthExtra[i - 16]; });
constexpr auto kMatches =
    values<kLengthSymbols>([](size_t i) { return i < 16 ? 0 : kMatchExtra[i - 16]; });
constexpr auto kDistances = values<kDistanceSymbols>([](size_t i) { return i / 4; });
constexpr auto kLiteralTable = [] {
  std::array<Value, kLiteralSymbols> result{};
  for (uint32_t i = 0; i < kLiteralSymbols; ++i) result[i].base = i;
  return result;
}();

// A symbol of count f owns f states in a row; from each it reads so many bits that all states can
// follow. States beyond the counts' sum stay in place and cost nothing; a sound stream has none.
template <size_t States, size_t Symbols>
std::array<State, States> make_states(const std::array<uint16_t, Symbols>& counts,
                                      const std::array<Value, Symbols>& meanings) {
  std::array<State, States> states{};
  size_t at = 0;
  for (size_t symbol = 0; symbol < Symbols; ++symbol) {
    const size_t count = counts[symbol];
    if (count == 0) continue;
    unsigned bits = 0;
    while (count << bits < States) ++bits;
    const size_t longer = (2 * States >> bits) - count;
    for (size_t i = 0; i < count; ++i, ++at) {
      State& state = states[at];
      const bool more = i < longer;
      state.bits = static_cast<uint8_t>(more ? bits : bits - 1);
      state.next =
          static_cast<uint16_t>(more ? ((count + i) << bits) - States : (i - longer) << (bits - 1));
      state.extra = meanings[symbol].extra;
      state.value = meanings[symbol].base;
    }
  }
  return states;
}

template <size_t States>
uint32_t step(const std::array<State, States>& states, uint16_t& at, BackwardBits& bits) {
  const State& state = states[at];
  at = static_cast<uint16_t>(state.next + bits.take(state.bits));
  return state.value + (state.extra != 0 ? bits.take(state.extra) : 0);
}

void decode_block(const LzfseHeader& header, Input& input, Window& window) {
  const size_t begin = window.made();
  std::array<std::byte, kMaxLiterals> literals;
  {
    const auto states = make_states<kLiteralStates>(header.literal_counts, kLiteralTable);
    BackwardBits bits(input.take(header.literal_payload), header.literal_bits);
    std::array<uint16_t, 4> at = header.literal_states;
    for (uint32_t i = 0; i < header.literals; ++i)
      literals[i] = static_cast<std::byte>(step(states, at[i % 4], bits));
  }
  ByteSpan left = ByteSpan(literals).first(header.literals);
  const auto lengths = make_states<kLengthStates>(header.length_counts, kLengths);
  const auto matches = make_states<kLengthStates>(header.match_counts, kMatches);
  const auto distances = make_states<kDistanceStates>(header.distance_counts, kDistances);
  BackwardBits bits(input.take(header.triplet_payload), header.triplet_bits);
  uint16_t length_at = header.length_state;
  uint16_t match_at = header.match_state;
  uint16_t distance_at = header.distance_state;
  size_t distance = 0;
  for (uint32_t i = 0; i < header.triplets; ++i) {
    const uint32_t length = step(lengths, length_at, bits);
    const uint32_t match = step(matches, match_at, bits);
    const uint32_t given = step(distances, distance_at, bits);
    if (given != 0) distance = given;
    if (length > left.size()) damaged("An LZFSE block uses more literals than it has.");
    window.literals(left.first(length));
    left = left.subspan(length);
    if (match != 0) window.match(distance, match);
  }
  if (window.made() - begin != header.output_bytes) damaged("An LZFSE block has the wrong length.");
}

}  // namespace

void decode_lzfse(ByteSpan encoded, MutableByteSpan out) {
  Input input(encoded);
  Window window(out);
  while (true) {
    switch (input.le32()) {
      case magic('$'):
        if (window.room() != 0) damaged("An LZFSE stream has the wrong length.");
        return;
      case magic('-'): {
        const uint32_t count = input.le32();
        window.literals(input.take(count));
        break;
      }
      case magic('n'): {
        const uint32_t made = input.le32();
        const uint32_t taken = input.le32();
        decode_lzvn(Input(input.take(taken)), made, window);
        break;
      }
      case magic('1'):
        decode_block(LzfseHeader::plain(input), input, window);
        break;
      case magic('2'):
        decode_block(LzfseHeader::packed(input), input, window);
        break;
      default:
        damaged("An LZFSE stream has an unknown block.");
    }
  }
}

}  // namespace cairn::codec
