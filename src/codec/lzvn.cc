#include "codec/lzfse.h"

namespace cairn::codec {
namespace {

enum class Op { kEnd, kNothing, kPair, kLiterals, kMatch, kInvalid };

Op kind_of(uint8_t code) {
  if (code == 0x06) return Op::kEnd;
  if (code == 0x0e || code == 0x16) return Op::kNothing;
  if (code >= 0xf0) return Op::kMatch;
  if (code >= 0xe0) return Op::kLiterals;
  const bool reserved = (code >= 0x70 && code < 0x80) || (code >= 0xd0 && code < 0xe0) ||
                        (code < 0x40 && (code & 7) == 6);
  return reserved ? Op::kInvalid : Op::kPair;
}

}  // namespace

void decode_lzvn(Input input, size_t output_bytes, Window& window) {
  const size_t begin = window.made();
  size_t distance = 0;
  while (true) {
    const uint8_t code = input.byte();
    size_t literals = 0;
    size_t length = 0;
    switch (kind_of(code)) {
      case Op::kEnd:
        input.take(7);
        if (input.left() != 0 || window.made() - begin != output_bytes)
          damaged("An LZVN block has the wrong length.");
        return;
      case Op::kNothing:
        continue;
      case Op::kInvalid:
        damaged("An LZVN block has an unknown code.");
      case Op::kLiterals:
        literals = code == 0xe0 ? input.byte() + size_t{16} : code & 15u;
        break;
      case Op::kMatch:
        length = code == 0xf0 ? input.byte() + size_t{16} : code & 15u;
        break;
      case Op::kPair:
        if (code >= 0xa0 && code < 0xc0) {
          const uint16_t word = input.le16();
          literals = code >> 3 & 3u;
          length = ((code & 7u) << 2 | (word & 3u)) + 3;
          distance = word >> 2;
        } else {
          literals = code >> 6;
          length = (code >> 3 & 7u) + 3;
          if ((code & 7) == 7)
            distance = input.le16();
          else if ((code & 7) != 6)
            distance = (code & 7u) << 8 | input.byte();
        }
        break;
    }
    window.literals(input.take(literals));
    if (length != 0) window.match(distance, length);
  }
}

}  // namespace cairn::codec
