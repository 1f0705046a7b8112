#include "codec/stream.h"
#include "codec/window.h"

namespace cairn::codec {
namespace {

// A length of MASK bits; when they are zero it continues in bytes, of which zero stands for 255.
size_t length_of(uint8_t code, uint8_t mask, Input& input) {
  size_t length = code & mask;
  if (length != 0) return length;
  length = mask;
  while (true) {
    const uint8_t more = input.byte();
    if (more != 0) return length + more;
    length += 255;
  }
}

}  // namespace

// LZO1X, as the Linux kernel's documentation describes the stream (Documentation/staging/lzo.rst).
// What codes below 16 mean depends on how many literals came before: none, 1 to 3, or more (4).
void decode_lzo(ByteSpan encoded, MutableByteSpan out) {
  Input input(encoded);
  Window window(out);
  unsigned before = 0;
  bool first = true;
  while (true) {
    const uint8_t code = input.byte();
    size_t distance = 0;
    size_t length = 0;
    unsigned behind = code & 3u;  // literals that follow the match
    if (first && code > 17) {
      window.literals(input.take(code - 17u));
      before = code < 21 ? code - 17u : 4;
      first = false;
      continue;
    }
    first = false;
    if (code >= 64) {
      length = code >= 128 ? 5u + (code >> 5 & 3u) : 3u + (code >> 5 & 1u);
      distance = (size_t{input.byte()} << 3) + (code >> 2 & 7u) + 1;
    } else if (code >= 16) {
      length = length_of(code, code >= 32 ? 31 : 7, input) + 2;
      const uint16_t word = input.le16();
      distance = word >> 2;
      behind = word & 3u;
      if (code >= 32) {
        distance += 1;
      } else {
        distance += 16384 + (size_t{code & 8u} << 11);
        if (distance == 16384) break;
      }
    } else if (before == 0) {
      window.literals(input.take(length_of(code, 15, input) + 3));
      before = 4;
      continue;
    } else {
      length = before == 4 ? 3 : 2;
      distance = (size_t{input.byte()} << 2) + (code >> 2) + (before == 4 ? 2049u : 1u);
    }
    window.match(distance, length);
    window.literals(input.take(behind));
    before = behind;
  }
  if (window.room() != 0) damaged("An LZO stream has the wrong length.");
}

}  // namespace cairn::codec
