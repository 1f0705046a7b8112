#include "crypto/hash.h"
#include "format/qed/layout.h"
#include "image.h"

// A checksum would keep everything behind it from being reached: it is made right first.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  std::vector<uint8_t> image(data, data + size);
  const MutableByteSpan bytes = std::as_writable_bytes(std::span(image));
  try {
    const qed::Header header = qed::Header::decode(bytes, size);
    const uint64_t place = header.ext_off * qed::kSector;
    if (place != 0 && place < size && size - place >= header.cluster_bytes() &&
        header.cluster_bytes() > 24)
      digest(HashAlgorithm::kMd5, bytes.subspan(place + 24, header.cluster_bytes() - 24), {},
             bytes.subspan(place + 8, 16));
  } catch (const Error&) {
  }
  return fuzzing::run_image("qed", image.data(), size);
}
