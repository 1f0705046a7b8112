#include "job/compare.h"

#include <algorithm>
#include <cstring>

#include "async/task_group.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/remote.h"

namespace cairn {
namespace {

constexpr uint64_t kCompareSector = 512;
// A worker takes this much at a time and reads it in pieces that stay in the processor's cache;
// where requests travel, in one.
constexpr uint64_t kCompareUnitBytes = 2 << 20;
constexpr uint64_t kComparePieceBytes = 128 << 10;

// The first sector in which the two differ; nothing when they are alike.
std::optional<uint64_t> first_difference(ByteSpan a, ByteSpan b) {
  if (std::memcmp(a.data(), b.data(), a.size()) == 0) return std::nullopt;
  uint64_t at = 0;
  while (std::memcmp(a.data() + at, b.data() + at,
                     std::min<uint64_t>(kCompareSector, a.size() - at)) == 0)
    at += kCompareSector;
  return at;
}

std::optional<uint64_t> first_data(ByteSpan bytes) {
  if (is_zero(bytes)) return std::nullopt;
  uint64_t at = 0;
  while (is_zero(bytes.subspan(at, std::min<uint64_t>(kCompareSector, bytes.size() - at))))
    at += kCompareSector;
  return at;
}

}  // namespace

Compare::Compare(Context& context, NodePtr first, NodePtr second, CompareOptions options,
                 const CancelSource& cancel)
    : context_(context),
      nodes_{std::move(first), std::move(second)},
      options_(options),
      cancel_(cancel) {
  const uint64_t second_length = nodes_[1]->length();
  begin_[1] = std::min(options_.second_begin, second_length);
  piece_bytes_ =
      is_remote(*nodes_[0]) || is_remote(*nodes_[1]) ? kCompareUnitBytes : kComparePieceBytes;
  total_ = options_.length.value_or(std::max(nodes_[0]->length(), second_length - begin_[1]));
}

Task<CompareResult> Compare::run() {
  const bool sizes_differ =
      !options_.length && nodes_[0]->length() != nodes_[1]->length() - begin_[1];
  if (sizes_differ && options_.strict) co_return CompareResult{.kind = CompareResult::Kind::kSize};
  const unsigned count = std::max(1u, options_.parallel);
  const unsigned workers = std::min(count, context_.runtime().worker_count());
  TaskGroup group;
  for (unsigned i = 0; i < count; ++i)
    group.spawn_on(context_.runtime().worker(i % workers), work());
  co_await group.join();
  result_.sizes_differ = sizes_differ;
  result_.common_length = std::min(nodes_[0]->length(), nodes_[1]->length() - begin_[1]);
  co_return result_;
}

void Compare::differs(CompareResult::Kind kind, uint64_t offset) {
  const std::lock_guard lock(result_state_);
  if (offset >= limit_) return;
  limit_ = offset;
  result_.kind = kind;
  result_.offset = offset;
}

Task<void> Compare::look(unsigned image) {
  Known& known = known_[image];
  if (position_ < known.end) co_return;
  Node& node = *nodes_[image];
  const uint64_t length = node.length() - begin_[image];
  if (position_ >= length) {
    known.extent = {.length = total_ - position_, .zero = true};
  } else {
    try {
      known.extent = co_await node.extent_at(begin_[image] + position_, length - position_);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      throw CompareFailure{CompareFailure::Step::kStatus, image, position_, error};
    }
  }
  known.end = position_ + known.extent.length;
}

// All that is known about the bytes at the position, but for where they are.
std::array<bool, 6> Compare::status(unsigned image) const {
  const Extent& extent = known_[image].extent;
  const bool last = begin_[image] + known_[image].end >= nodes_[image]->length();
  const bool plain = extent.host != nullptr && !extent.compressed;
  return {extent.zero, extent.data, extent.allocated, extent.compressed, plain, last};
}

Task<Compare::Chunk> Compare::next_chunk() {
  auto guard = co_await scan_.lock();
  Chunk chunk;
  chunk.offset = position_;
  if (position_ >= total_ || position_ >= limit_) co_return chunk;
  co_await look(0);
  co_await look(1);
  const Extent& a = known_[0].extent;
  const Extent& b = known_[1].extent;
  chunk.zero[0] = a.zero;
  chunk.zero[1] = b.zero;
  if (options_.strict && status(0) != status(1)) {
    differs(CompareResult::Kind::kStatus, position_);
    co_return chunk;
  }
  uint64_t end = std::min({known_[0].end, known_[1].end, total_});
  if (!a.zero || !b.zero)
    end = std::min(end, align_down(position_, kCompareUnitBytes) + kCompareUnitBytes);
  chunk.length = end - position_;
  position_ = end;
  for (unsigned image = 0; image < 2; ++image)
    if (!chunk.zero[image]) budgets[image].count(chunk.length);
  co_return chunk;
}

Task<void> Compare::work() {
  // All are started before the first one, which may never have to wait, takes its worker.
  co_await yield_now();
  AlignedBuffer buffers[2] = {AlignedBuffer(piece_bytes_), AlignedBuffer(piece_bytes_)};
  while (true) {
    cancel_.check();
    Chunk chunk;
    bool failed = true;
    std::exception_ptr error;
    try {
      chunk = co_await next_chunk();
      failed = false;
      if (chunk.length == 0) co_return;
      if (!chunk.zero[0] || !chunk.zero[1]) {
        for (Chunk piece = chunk; piece.length != 0 && piece.offset < limit_;) {
          const uint64_t part = std::min(chunk.offset + chunk.length - piece.offset, piece_bytes_);
          piece.length = part;
          co_await compare_piece(piece, buffers[0].span().first(part),
                                 buffers[1].span().first(part));
          piece.offset += part;
          piece.length = chunk.offset + chunk.length - piece.offset;
        }
      }
    } catch (...) {
      error = std::current_exception();
    }
    if (error) {
      // What is before the place that failed is still compared; nothing after it.
      differs(CompareResult::Kind::kContent, failed ? 0 : chunk.offset);
      std::rethrow_exception(error);
    }
    const uint64_t done = done_.fetch_add(chunk.length) + chunk.length;
    if (progress) progress(done, total_);
  }
}

Task<void> Compare::read(unsigned image, uint64_t offset, MutableByteSpan out) {
  try {
    co_await nodes_[image]->read(begin_[image] + offset, out);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw CompareFailure{CompareFailure::Step::kRead, image, offset, error};
  }
}

Task<void> Compare::compare_piece(const Chunk& chunk, MutableByteSpan first,
                                  MutableByteSpan second) {
  if (!chunk.zero[0]) co_await read(0, chunk.offset, first);
  if (!chunk.zero[1]) co_await read(1, chunk.offset, second);
  std::optional<uint64_t> at;
  if (chunk.zero[0])
    at = first_data(second);
  else if (chunk.zero[1])
    at = first_data(first);
  else
    at = first_difference(first, second);
  if (at) differs(CompareResult::Kind::kContent, align_down(chunk.offset + *at, kCompareSector));
}

}  // namespace cairn
