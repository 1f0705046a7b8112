#include "format/split/node.h"

#include <fmt/core.h>

#include "async/runtime.h"
#include "base/arith.h"
#include "block/capabilities/storage_use.h"
#include "block/context.h"
#include "block/driver.h"
#include "format/split/pieces.h"

namespace cairn {

SplitNode::SplitNode(Context& context, const Driver& driver, NodePtr file)
    : JoinedNode(context, driver) {
  pieces_.push_back({file->length(), file->filename(), file.get()});
  join(file->length(), file.get());
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
      pieces_.push_back({length, names[i], nullptr});
    } else {
      NodePtr piece = co_await request.open_reference("piece", names[i]);
      length = piece->length();
      pieces_.push_back({length, piece->filename(), piece.get()});
      add_child("pieces." + std::to_string(i), std::move(piece), ChildRole::kExtent);
    }
    // All are of one size, but for the last one: a shorter one was cut off.
    if (i > 1 && before.length != pieces_.front().length)
      invalid(fmt::format("piece '{}' of the split disk has {} bytes, the first one {}",
                          names[i - 1], before.length, pieces_.front().length));
    const auto sum = checked_add(end, length);
    if (!sum || *sum > static_cast<uint64_t>(INT64_MAX) - 511)
      throw Error(ErrorKind::kTooLarge, "the split disk is too large");
    end = *sum;
    join(length, pieces_.back().node);
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
    const auto bytes = co_await allocated_bytes_of(*piece.node);
    if (!bytes) co_return std::nullopt;
    total += *bytes;
  }
  co_return total;
}

}  // namespace cairn
