// Compressed streams of strangers: the first byte chooses the kind, the second how much is
// expected.
#include <vector>

#include "codec/stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  constexpr unsigned kKinds = static_cast<unsigned>(cairn::StreamKind::kAdc) + 1;
  std::vector<std::byte> out(512 * (size_t{data[1]} + 1));
  try {
    cairn::decode_stream(static_cast<cairn::StreamKind>(data[0] % kKinds),
                         std::as_bytes(std::span(data + 2, size - 2)), out);
  } catch (const cairn::Error&) {
  }
  return 0;
}
