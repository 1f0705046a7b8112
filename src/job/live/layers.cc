#include "job/live/layers.h"

#include <algorithm>

#include "block/driver.h"
#include "block/graph/lasting_name.h"

namespace cairn::live {
namespace {

constexpr uint64_t kOwnBufferBytes = 1 << 20;

// What the filter AT shows; null where it is none.
Node* filtered(const Node& at) {
  if (at.driver().kind() != DriverKind::kFilter) return nullptr;
  for (const Child& child : at.children())
    if (child.role == ChildRole::kFiltered) return child.node.get();
  return nullptr;
}

}  // namespace

Task<CopyPiece> LayerCopy::look(uint64_t offset, uint64_t max) {
  const Extent found = co_await top_->extent_at(offset, max);
  CopyPiece piece{.offset = offset, .length = std::min(found.length, max)};
  // What nobody stores reads as zeroes; below a layer that is too short the base would not.
  const unsigned depth = found.allocated ? found.depth : found.depth + 1;
  const bool wanted = depth >= first_ && depth < end_ && (found.allocated || found.zero);
  if (!wanted)
    piece.kind = CopyPiece::Kind::kSkip;
  else
    piece.kind = found.zero ? CopyPiece::Kind::kZero : CopyPiece::Kind::kData;
  co_return piece;
}

Task<void> LayerCopy::copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) {
  RangeLock::Guard guard;
  if (ranges_ != nullptr) co_await ranges_->acquire(guard, piece.offset, piece.length, true);
  const uint64_t end = piece.offset + piece.length;
  for (uint64_t at = piece.offset; at < end;) {
    *side = JobSide::kRead;
    // A user may have written a part since.
    const CopyPiece part = co_await look(at, end - at);
    if (part.kind == CopyPiece::Kind::kData) {
      // What was zeroes a moment ago has no buffer.
      AlignedBuffer own(buffer.empty() ? std::min(part.length, kOwnBufferBytes) : 0);
      const MutableByteSpan room = buffer.empty() ? own.span() : buffer;
      const MutableByteSpan bytes = room.first(std::min<uint64_t>(part.length, room.size()));
      co_await top_->read(at, bytes);
      *side = JobSide::kWrite;
      co_await target_->write(at, bytes);
      at += bytes.size();
      continue;
    }
    *side = JobSide::kWrite;
    if (part.kind == CopyPiece::Kind::kZero)
      co_await target_->write_zeroes(at, part.length, {.may_unmap = first_ == 0});
    at += part.length;
  }
}

Node* next_below(const Node& at) { return at.backing() != nullptr ? at.backing() : filtered(at); }

Node& through_filters(Node& top) {
  Node* at = &top;
  while (Node* below = filtered(*at)) at = below;
  return *at;
}

std::optional<unsigned> layers_above(const Node& top, const Node* base) {
  unsigned layers = 0;
  const Node* at = &top;
  while (at != base) {
    if (at == nullptr) return std::nullopt;
    if (at->backing() != nullptr || next_below(*at) == nullptr) ++layers;
    at = next_below(*at);
  }
  return layers;
}

std::string stored_name(Node& base) { return lasting_name(through_filters(base)); }
std::string stored_format(Node& base) { return std::string(through_filters(base).driver().name()); }

}  // namespace cairn::live
