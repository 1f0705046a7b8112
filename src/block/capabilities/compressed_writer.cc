#include "block/capabilities/compressed_writer.h"

#include <algorithm>

#include "async/runtime.h"
#include "base/arith.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"

namespace cairn {

Task<void> CompressedWriter::finish_encoded() { co_return; }

CompressedWriter* compressed_writer(Node& node) {
  auto* writer = node.as<CompressedWriter>();
  return writer != nullptr && writer->supports_compression() ? writer : nullptr;
}

bool compressed_only(const Node& node) {
  const auto* writer = node.as<CompressedWriter>();
  return writer != nullptr && writer->compressed_only();
}

void set_compression_level(Node& node, uint64_t level) {
  auto* writer = node.as<CompressedWriter>();
  if (writer == nullptr)
    throw Error(ErrorKind::kUnsupported,
                "Format '" + std::string(node.driver().name()) + "' has no compression_level");
  writer->set_compression_level(level);
}

Task<void> write_compressed(Node& node, uint64_t offset, ByteSpan in) {
  node.check_range(offset, in.size());
  node.check_writable();
  CompressedWriter* writer = compressed_writer(node);
  if (writer == nullptr) throw Error::system(ENOTSUP);
  const uint64_t cluster = node.limits().cluster_bytes;
  if (!is_aligned(offset, cluster) ||
      (!is_aligned(in.size(), cluster) && offset + in.size() != node.length()))
    throw Error::system(EINVAL);
  while (!in.empty()) {
    const size_t part = std::min<uint64_t>(in.size(), cluster);
    const ByteSpan plain = in.first(part);
    const std::vector<std::byte> encoded =
        co_await run_blocking([&] { return writer->encode_cluster(plain); });
    co_await writer->write_encoded(offset, encoded, plain);
    offset += part;
    in = in.subspan(part);
  }
}

}  // namespace cairn
