// Packed files of strangers: the first byte chooses the packing, the second where the file is cut
// into pieces.
#include <vector>

#include "codec/unpack.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto unpacker = cairn::make_unpacker(static_cast<cairn::Packing>(data[0] % 4));
  const cairn::ByteSpan all = std::as_bytes(std::span(data + 2, size - 2));
  const size_t cut = std::min<size_t>(data[1], all.size());
  std::vector<std::byte> buffer(4096);
  try {
    size_t made = 0;
    for (const bool last : {false, true}) {
      cairn::ByteSpan in = last ? all.subspan(cut) : all.first(cut);
      while (made < (8 << 20)) {
        cairn::MutableByteSpan room(buffer);
        unpacker->step(in, room, last);
        made += buffer.size() - room.size();
        if (in.empty() && !room.empty()) break;
      }
    }
  } catch (const cairn::Error&) {
  }
  return 0;
}
