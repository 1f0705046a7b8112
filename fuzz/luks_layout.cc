// Headers of LUKS 1 and 2 by themselves: decode must throw or give what encodes to the same again.
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "crypto/luks1.h"
#include "crypto/luks2.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  const ByteSpan bytes = std::as_bytes(std::span(data, size));
  for (const bool detached : {false, true}) {
    try {
      const luks1::Header header = luks1::Header::decode(bytes, detached);
      std::vector<std::byte> again(luks1::Header::kBytes);
      header.encode(again);
      const luks1::Header second = luks1::Header::decode(again, detached);
      if (second.payload_offset != header.payload_offset || second.uuid != header.uuid)
        std::abort();
      if (header.material_bytes() > (1u << 20)) std::abort();
    } catch (const Error&) {
    }
  }
  if (size >= luks2::Header::kBytes) {
    try {
      luks2::Header::decode(bytes, load_be<uint64_t>(bytes, 256));
    } catch (const Error&) {
    }
    static_cast<void>(luks2::Header::checksum_is_right(bytes));
  }
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const luks2::Metadata metadata = luks2::Metadata::decode(text, 32768);
    for (const luks2::Keyslot& slot : metadata.keyslots)
      if (slot.bytes > (4u << 20) || slot.offset < 32768) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
