#include "format/packed/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"

namespace cairn::packed {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

PackedNode::PackedNode(Context& context, const Driver& driver, NodePtr file, Packing packing)
    : Node(context, driver), packing_(packing) {
  set_filename(file->filename());
  add_child("file", std::move(file), ChildRole::kFile);
  set_unbounded(true);
}

Task<void> PackedNode::unpack() {
  spool_ = std::make_unique<Spool>(context(), "'" + filename() + "'", "unpack the file first");
  spool_->limit(context().unpacking.most_bytes);
  buffer_.resize(kPieceBytes);
  const auto unpacker = make_unpacker(packing_);
  Node& packed = *file();
  const uint64_t total = packed.length();
  std::vector<std::byte> piece(kPieceBytes);
  std::exception_ptr error;
  try {
    for (uint64_t at = 0; at < total;) {
      const MutableByteSpan part =
          MutableByteSpan(piece).first(std::min<uint64_t>(piece.size(), total - at));
      co_await packed.read(at, part);
      at += part.size();
      co_await run_blocking([&] { unpack_piece(*unpacker, part, at == total); });
      if (context().progress) context().progress("unpack", at, total);
    }
    spool_->finish();
  } catch (...) {
    error = std::current_exception();
  }
  buffer_ = {};
  if (error) std::rethrow_exception(error);
  content_ = co_await spool_->open();
  set_length(spool_->length());
}

void PackedNode::unpack_piece(Unpacker& unpacker, ByteSpan in, bool last) {
  const uint64_t begin = consumed_;
  const size_t given = in.size();
  while (true) {
    if (context().cancel != nullptr) context().cancel->check();
    MutableByteSpan room(buffer_);
    const size_t before = in.size();
    try {
      unpacker.step(in, room, last);
    } catch (const Error& error) {
      throw Error(
          error.kind(),
          fmt::format("'{}' cannot be unpacked: {}, at byte {}, after {} bytes of content",
                      filename(), error.message(), begin + given - in.size(), spool_->length()))
          .hint("The file is incomplete or damaged: get it again.");
    }
    const size_t made = buffer_.size() - room.size();
    spool_->add(ByteSpan(buffer_).first(made));
    if (in.empty() && !room.empty()) break;
    if (made == 0 && in.size() == before)
      throw Error(ErrorKind::kCorrupt, "'" + filename() + "' cannot be unpacked");
  }
  consumed_ += given;
}

Task<void> PackedNode::do_read(uint64_t offset, MutableByteSpan out) {
  return content_->read(offset, out);
}

Task<Extent> PackedNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await content_->layer_extent_at(offset, max);
  extent.allocated = true;
  // Nobody else can read them there.
  extent.host = nullptr;
  extent.compressed = extent.data;
  co_return extent;
}

Task<void> PackedNode::do_close() {
  if (content_) co_await std::exchange(content_, nullptr)->close();
  spool_.reset();
}

Value PackedNode::specific_info() const {
  Value result = Value::object();
  result.set("compression", to_string(packing_));
  result.set("packed-size", file()->length());
  return result;
}

}  // namespace cairn::packed
