// The structures of qcow2 by themselves: decode must throw or give what encodes to the same again.
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "format/qcow2/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  using namespace cairn::qcow2;
  const ByteSpan bytes = std::as_bytes(std::span(data, size));
  try {
    Header header = Header::decode(bytes);
    header.validate(size, false);
    std::vector<std::byte> cluster(bytes.begin(), bytes.end());
    cluster.resize(header.cluster_bytes());
    const Extensions extensions = Extensions::decode(header, cluster);
    Header again = header;
    const std::vector<std::byte> encoded = encode_first_cluster(again, extensions);
    if (Header::decode(encoded).size != header.size) std::abort();
    if (Extensions::decode(again, encoded).backing_name != extensions.backing_name) std::abort();
  } catch (const Error&) {
  }
  try {
    SnapshotEntry::decode(bytes, 0, 1 << 20);
  } catch (const Error&) {
  }
  try {
    BitmapEntry::decode(bytes, Header{});
  } catch (const Error&) {
  }
  return 0;
}
