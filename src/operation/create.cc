#include "operation/create.h"

#include "codec/codec.h"
#include "operation/target.h"

namespace cairn::operation {

void create(Caller& caller, CreateOptions options, bool overwrite) {
  Target target(caller, options.filename, overwrite, options.format, options.options);
  target.prepare(options);
  caller.run(create_image(caller.context, std::move(options)));
  target.commit();
}

std::optional<uint64_t> take_compression_level(Options& options) {
  constexpr std::string_view kName = "compression_level";
  const auto level = options.number(kName);
  if (!level) return std::nullopt;
  const bool zstd = options.string("compression_type").value_or("zlib") == "zstd";
  check_level(zstd ? Compression::kZstd : Compression::kDeflate, *level);
  options.erase(kName);
  return level;
}

Task<uint64_t> size_of_disk(Context& context, OpenRequest request) {
  request.flags.metadata_only = true;
  request.flags.no_backing = true;
  NodePtr node = co_await open_node(context, std::move(request));
  const uint64_t length = node->length();
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), nullptr);
  co_return length;
}

}  // namespace cairn::operation
