#include "operation/map.h"

#include <algorithm>

#include "async/finally.h"

namespace cairn::operation {
namespace {

bool continues(const MapPiece& piece, const Extent& next, uint64_t at) {
  const Extent& last = piece.extent;
  if (piece.start + last.length != at) return false;
  if (last.zero != next.zero || last.data != next.data || last.compressed != next.compressed ||
      last.depth != next.depth || last.allocated != next.allocated || last.host != next.host)
    return false;
  return last.host == nullptr || last.host_offset + last.length == next.host_offset;
}

Task<void> walk(const Caller& caller, NodePtr node, uint64_t at, uint64_t end,
                const MapOptions& options) {
  const uint64_t begin = at;
  MapPiece piece{.start = at, .extent = {}};
  bool some = false;
  while (at < end) {
    caller.cancel.check();
    Extent extent;
    try {
      extent = co_await node->extent_at(at, end - at);
    } catch (const Error& error) {
      throw Error(error.kind(), "Could not read file metadata: " + error.message());
    }
    if (some && continues(piece, extent, at)) {
      piece.extent.length += extent.length;
    } else {
      if (some) options.found(piece);
      piece = {.start = at, .extent = extent};
      some = true;
    }
    at += extent.length;
    caller.progress(at - begin, end - begin);
  }
  options.found(piece);
}

}  // namespace

Task<void> map(const Caller& caller, OpenRequest request, MapOptions options) {
  NodePtr node = co_await open_node(caller.context, std::move(request));
  co_await finally(
      [&]() -> Task<void> {
        options.opened();
        const uint64_t length = node->length();
        const uint64_t rest = options.start < length ? length - options.start : 0;
        const uint64_t end = options.start + std::min(options.most, rest);
        co_await walk(caller, node, options.start, end, options);
      },
      [&] { return close_all({node}); });
}

}  // namespace cairn::operation
