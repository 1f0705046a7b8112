#include "codec/stream.h"
#include "codec/window.h"

namespace cairn::codec {

// docs/formats/dmg.md, "ADC".
void decode_adc(ByteSpan encoded, MutableByteSpan out) {
  Input input(encoded);
  Window window(out);
  while (window.room() != 0) {
    const uint8_t control = input.byte();
    if ((control & 0x80) != 0) {
      window.literals(input.take((control & 0x7fu) + 1));
    } else if ((control & 0x40) != 0) {
      const size_t distance = input.be16() + size_t{1};
      window.match(distance, (control & 0x3fu) + 4);
    } else {
      const size_t distance = ((control & 3u) << 8) + input.byte() + 1;
      window.match(distance, (control >> 2) + 3u);
    }
  }
}

}  // namespace cairn::codec
