#include "format/split/node.h"

#include <algorithm>

#include "async/runtime.h"
#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "format/split/pieces.h"

namespace cairn {

SplitNode::SplitNode(Context& context, const Driver& driver, NodePtr file) : Node(context, driver) {
  pieces_.push_back({0, file->length(), file.get(), file->filename()});
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<void> SplitNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  std::string first = file()->filename();
  if (first.starts_with("file:")) first.erase(0, 5);
  set_filename(first);
  // `info` opens one file; the sizes of the others are enough for it.
  const bool denied = request.flags.references.mode == ReferencePolicy::Mode::kDeny;
  if (denied && !request.flags.metadata_only)
    throw Error(ErrorKind::kDenied,
                "this is one piece of a split disk: the other pieces may not be opened here")
        .hint("-f raw opens this piece alone.");
  const std::vector<std::string> names =
      co_await run_blocking([&] { return split::pieces_of(first); });
  uint64_t end = pieces_.front().length;
  for (size_t i = 1; i < names.size(); ++i) {
    const Piece before = pieces_.back();
    uint64_t length = 0;
    if (denied) {
      length = co_await run_blocking([&] { return split::bytes_of_piece(names[i]); });
      pieces_.push_back({end, length, nullptr, names[i]});
    } else {
      NodePtr piece = co_await request.open_reference("piece", names[i]);
      length = piece->length();
      pieces_.push_back({end, length, piece.get(), piece->filename()});
      add_child("pieces." + std::to_string(i), std::move(piece), ChildRole::kExtent);
    }
    // All are of one size, but for the last one: a shorter one was cut off.
    if (i > 1 && before.length != pieces_.front().length)
      invalid("piece '" + names[i - 1] + "' of the split disk has " +
              std::to_string(before.length) + " bytes, the first one " +
              std::to_string(pieces_.front().length));
    const auto sum = checked_add(end, length);
    if (!sum || *sum > static_cast<uint64_t>(INT64_MAX) - 511)
      throw Error(ErrorKind::kTooLarge, "the split disk is too large");
    end = *sum;
  }
  if (pieces_.back().length > pieces_.front().length)
    invalid("the last piece of the split disk is larger than the first one");
  set_length(align_up(end, 512));
}

Value SplitNode::specific_info() const {
  Value list = Value::array();
  for (const Piece& piece : pieces_) {
    Value one = Value::object();
    one.set("filename", piece.name);
    one.set("virtual-size", piece.length);
    list.push_back(std::move(one));
  }
  Value info = Value::object();
  info.set("pieces", std::move(list));
  return info;
}

Task<std::optional<uint64_t>> SplitNode::allocated_bytes() {
  uint64_t total = 0;
  for (const Piece& piece : pieces_) {
    if (piece.node == nullptr) co_return std::nullopt;
    const auto bytes = co_await piece.node->allocated_bytes();
    if (!bytes) co_return std::nullopt;
    total += *bytes;
  }
  co_return total;
}

SplitNode::Part SplitNode::part_at(uint64_t offset, uint64_t length) const {
  const auto after =
      std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                       [](uint64_t at, const Piece& piece) { return at < piece.begin; });
  const Piece& piece = *std::prev(after);
  const uint64_t inside = offset - piece.begin;
  const uint64_t most = after == pieces_.end() ? length : piece.length - inside;
  return {piece.node, inside, std::min(length, most)};
}

Task<void> SplitNode::do_read(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const Part part = part_at(offset, out.size());
    co_await part.node->read(part.offset, out.first(part.length));
    offset += part.length;
    out = out.subspan(part.length);
  }
}

Task<void> SplitNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  while (!in.empty()) {
    const Part part = part_at(offset, in.size());
    co_await part.node->write(part.offset, in.first(part.length), flags);
    offset += part.length;
    in = in.subspan(part.length);
  }
}

Task<void> SplitNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  while (length != 0) {
    const Part part = part_at(offset, length);
    co_await part.node->write_zeroes(part.offset, part.length, flags);
    offset += part.length;
    length -= part.length;
  }
}

Task<void> SplitNode::do_discard(uint64_t offset, uint64_t length) {
  while (length != 0) {
    const Part part = part_at(offset, length);
    co_await part.node->discard(part.offset, part.length);
    offset += part.length;
    length -= part.length;
  }
}

Task<void> SplitNode::do_flush() {
  for (const Piece& piece : pieces_) co_await piece.node->flush();
}

Task<Extent> SplitNode::do_extent(uint64_t offset, uint64_t max) {
  const Part part = part_at(offset, max);
  Extent extent = co_await part.node->extent_at(part.offset, part.length);
  extent.length = std::min(extent.length, part.length);
  co_return extent;
}

}  // namespace cairn
