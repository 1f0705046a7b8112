#include "block/joined_node.h"

#include <algorithm>

namespace cairn {

void JoinedNode::join(uint64_t length, Node* node) {
  const uint64_t begin = pieces_.empty() ? 0 : pieces_.back().begin + pieces_.back().length;
  pieces_.push_back({begin, length, node});
}

JoinedNode::Part JoinedNode::part_at(uint64_t offset, uint64_t length) const {
  const auto after =
      std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                       [](uint64_t at, const Piece& piece) { return at < piece.begin; });
  const Piece& piece = *std::prev(after);
  const uint64_t inside = offset - piece.begin;
  // What follows the last piece is the request layer's rounding.
  const uint64_t most = after == pieces_.end() ? length : piece.length - inside;
  return {piece.node, inside, std::min(length, most)};
}

Task<void> JoinedNode::do_read(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const Part part = part_at(offset, out.size());
    co_await part.node->read(part.offset, out.first(part.length));
    offset += part.length;
    out = out.subspan(part.length);
  }
}

Task<void> JoinedNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  while (!in.empty()) {
    const Part part = part_at(offset, in.size());
    co_await part.node->write(part.offset, in.first(part.length), flags);
    offset += part.length;
    in = in.subspan(part.length);
  }
}

Task<void> JoinedNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  while (length != 0) {
    const Part part = part_at(offset, length);
    co_await part.node->write_zeroes(part.offset, part.length, flags);
    offset += part.length;
    length -= part.length;
  }
}

Task<void> JoinedNode::do_discard(uint64_t offset, uint64_t length) {
  while (length != 0) {
    const Part part = part_at(offset, length);
    co_await part.node->discard(part.offset, part.length);
    offset += part.length;
    length -= part.length;
  }
}

Task<void> JoinedNode::do_flush() {
  for (const Piece& piece : pieces_) co_await piece.node->flush();
}

Task<Extent> JoinedNode::do_extent(uint64_t offset, uint64_t max) {
  const Part part = part_at(offset, max);
  Extent extent = co_await part.node->extent_at(part.offset, part.length);
  extent.length = std::min(extent.length, part.length);
  co_return extent;
}

}  // namespace cairn
