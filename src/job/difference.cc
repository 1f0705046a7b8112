#include "job/difference.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "async/runtime.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/compressed_writer.h"

namespace cairn {
namespace {

constexpr uint64_t kDifferencePieceBytes = 1 << 20;
// What one copier goes through before it asks for more: to ask costs more than a small piece.
constexpr uint64_t kDifferenceRegionBytes = 4 << 20;
constexpr unsigned kDifferenceLeastCopiers = 8;
constexpr uint64_t kDifferenceDataBytes = 2 << 20;

Task<void> read_from(Node* disk, uint64_t offset, MutableByteSpan out, std::string_view name) {
  const uint64_t length = disk == nullptr ? 0 : disk->length();
  const size_t inside = offset < length ? std::min<uint64_t>(out.size(), length - offset) : 0;
  try {
    if (inside != 0) co_await disk->read(offset, out.first(inside));
  } catch (const Error& error) {
    throw error.behind("error while reading from " + std::string(name));
  }
  std::memset(out.data() + inside, 0, out.size() - inside);
}

}  // namespace

Task<Difference::Look> Difference::look(Disk& disk, uint64_t offset, uint64_t max) const {
  if (disk.node == nullptr || offset >= disk.node->length()) co_return Look{.length = max};
  if (offset < disk.begin || offset >= disk.begin + disk.known.length) {
    const uint64_t rest = disk.node->length() - offset;
    Extent extent;
    if (options_.layers)
      extent = co_await disk.node->layer_extent_at(offset, rest);
    else
      extent = co_await disk.node->extent_at(offset, rest);
    disk.begin = offset;
    disk.known = {.zero = extent.zero,
                  .below = options_.layers && !extent.allocated,
                  .compressed = extent.compressed,
                  .host = extent.compressed ? nullptr : extent.host,
                  .host_offset = extent.host_offset,
                  .length = extent.length};
  }
  Look result = disk.known;
  result.host_offset += offset - disk.begin;
  result.length = std::min(max, disk.begin + disk.known.length - offset);
  co_return result;
}

Task<void> Difference::run() {
  total_ = target_->length();
  most_ = std::max(kDifferencePieceBytes, target_->limits().cluster_bytes);
  region_bytes_ = align_up(kDifferenceRegionBytes, most_);
  if (options_.zeroes_as_data && wanted_ != nullptr)
    data_end_ = align_up(wanted_->length(), kDifferenceDataBytes);
  scan_ = new_scan();
  Runtime& runtime = target_->context().runtime();
  const unsigned workers = runtime.worker_count();
  TaskGroup group;
  for (unsigned i = 0; i < std::max(kDifferenceLeastCopiers, workers); ++i)
    group.spawn_on(runtime.worker(i % workers), settle_regions(group));
  co_await group.join();
}

// The next region that has something to do at its begin; an empty one in the end. What needs
// nothing is gone through here, so that long stretches of it are one step.
Task<Difference::Region> Difference::claim(const TaskGroup& group) {
  Mutex::Guard guard = co_await next_mutex_.lock();
  while (next_ < total_ && !group.failed()) {
    cancel_.check();
    const Piece piece = co_await next_piece(scan_, next_, total_);
    if (piece.kind != Piece::Kind::kSame) {
      const uint64_t begin = next_;
      next_ = std::min(total_, align_down(begin, region_bytes_) + region_bytes_);
      co_return Region{begin, next_};
    }
    next_ += piece.length;
    count(piece.length);
  }
  co_return Region{};
}

void Difference::count(uint64_t bytes) {
  const std::lock_guard lock(done_mutex_);
  done_ += bytes;
  if (progress) progress(done_, total_);
}

// Takes the next region, settles its pieces, and so on.
Task<void> Difference::settle_regions(const TaskGroup& group) {
  co_await yield_now();
  AlignedBuffer wanted(most_);
  AlignedBuffer shown(most_);
  Scan scan = new_scan();
  while (true) {
    const Region region = co_await claim(group);
    if (region.begin == region.end) break;
    Piece next = co_await next_piece(scan, region.begin, region.end);
    while (next.length != 0) {
      cancel_.check();
      Piece piece = next;
      next = co_await join_pieces(scan, piece, region.end);
      if (piece.kind != Piece::Kind::kSame)
        co_await settle(piece, wanted.span().first(piece.length),
                        shown.span().first(piece.shown_zero ? 0 : piece.length));
      count(piece.length);
    }
  }
}

// Lengthens PIECE by those that follow it and are written in the same way: the extents of the two
// disks end where they like, and one request puts the data in one place of the target. Gives the
// piece after it, which is empty at LIMIT.
Task<Difference::Piece> Difference::join_pieces(Scan& scan, Piece& piece, uint64_t limit) const {
  const auto joins = [&](const Piece& more) {
    return piece.kind == Piece::Kind::kCompare && more.kind == piece.kind &&
           more.compress == piece.compress &&
           piece.offset % most_ + piece.length + more.length <= most_;
  };
  while (piece.offset + piece.length < limit) {
    const Piece more = co_await next_piece(scan, piece.offset + piece.length, limit);
    if (!joins(more)) co_return more;
    piece.length += more.length;
    piece.shown_zero = piece.shown_zero && more.shown_zero;
  }
  co_return Piece{};
}

// What is from AT on, up to LIMIT: nothing to do, or bytes to compare, in whole units of the
// target.
Task<Difference::Piece> Difference::next_piece(Scan& scan, uint64_t at, uint64_t limit) const {
  uint64_t most = limit - at;
  if (options_.own_stays) {
    if (at >= scan.own_end) {
      scan.own = co_await target_->layer_extent_at(at, limit - at);
      scan.own_end = at + scan.own.length;
    }
    most = std::min(most, scan.own_end - at);
  }
  Piece piece{.offset = at, .length = most};
  if (options_.own_stays && scan.own.allocated) co_return piece;
  const Look a = co_await look(scan.wanted, at, most);
  const Look b = co_await look(scan.shown, at, most);
  const uint64_t same = std::min({most, a.length, b.length});
  // Bytes that are at the same place of the same file are the same. A cluster that reads as zeroes
  // may keep its place, where the other disk still has what was there before.
  const bool same_place = a.host != nullptr && b.host != nullptr && a.zero == b.zero &&
                          a.host->filename() == b.host->filename() &&
                          a.host_offset == b.host_offset;
  using Kind = Piece::Kind;
  if (a.below != b.below)
    piece.kind = a.below ? Kind::kUnmap : Kind::kWrite;
  else if (!a.below && !(a.zero && b.zero) && !same_place)
    piece.kind = Kind::kCompare;
  // Extents may end inside of a cluster: go on to where the target's units do.
  const uint64_t unit = std::max<uint64_t>(
      1, options_.layers ? target_->limits().zero_alignment : target_->limits().cluster_bytes);
  const uint64_t end = at + most;
  DirtyBitmap::Run run;
  if (options_.changed != nullptr && piece.kind == Kind::kCompare) {
    run = options_.changed->run_at(at, most);
    const uint64_t clean_end = at + std::min(same, run.dirty ? 0 : run.length);
    const uint64_t whole_end = clean_end == end ? end : align_down(clean_end, unit);
    if (whole_end > at && (b.zero || !a.zero)) {
      piece.kind = Kind::kSame;
      piece.length = whole_end - at;
      piece.shown_zero = true;
      co_return piece;
    }
  }
  if (piece.kind == Kind::kSame && same != most) {
    piece.length = std::max(align_down(at + same, unit), at) - at;
    if (piece.length == 0) {
      piece.kind = Kind::kCompare;
      piece.length = std::min(most, unit - at % unit);
    }
  } else if (piece.kind != Kind::kSame) {
    piece.length = std::min({end, align_up(at + same, unit), align_down(at, most_) + most_}) - at;
    if (run.dirty && run.length != 0)
      piece.length = std::min(piece.length, align_up(at + run.length, unit) - at);
  }
  piece.compress = options_.compress || (options_.keep_compressed && a.compressed);
  piece.shown_zero = piece.kind != Kind::kCompare || (b.zero && piece.length <= b.length);
  co_return piece;
}

Task<void> Difference::settle(Piece piece, MutableByteSpan wanted, MutableByteSpan shown) {
  if (piece.kind == Piece::Kind::kUnmap) {
    const uint64_t done = co_await unmap(*target_, piece.offset, piece.length);
    piece.offset += done;
    wanted = wanted.subspan(done);
    if (wanted.empty()) co_return;
  }
  co_await read_from(wanted_.get(), piece.offset, wanted, options_.wanted_name);
  if (piece.kind != Piece::Kind::kCompare) {
    co_await keep(piece.offset, wanted, piece.compress);
    co_return;
  }
  if (!shown.empty()) co_await read_from(shown_.get(), piece.offset, shown, options_.shown_name);
  co_await compare(piece, wanted, shown);
}

// SHOWN is empty when it is known to be zeroes.
Task<void> Difference::compare(Piece piece, ByteSpan wanted, ByteSpan shown) {
  const uint64_t cluster = std::max<uint64_t>(1, target_->limits().cluster_bytes);
  // Compressed clusters are stored whole; else the units in which the target allocates.
  const uint64_t unit =
      piece.compress ? cluster : std::max<uint64_t>(1, target_->limits().zero_alignment);
  uint64_t begin = 0;  // of what differs and is not yet kept
  for (uint64_t at = 0; at < wanted.size();) {
    const uint64_t length =
        std::min<uint64_t>(wanted.size() - at, unit - (piece.offset + at) % unit);
    const bool same = shown.empty()
                          ? is_zero(wanted.subspan(at, length))
                          : std::memcmp(wanted.data() + at, shown.data() + at, length) == 0;
    if (same) {
      co_await keep(piece.offset + begin, wanted.subspan(begin, at - begin), piece.compress);
      begin = at + length;
    }
    at += length;
  }
  co_await keep(piece.offset + begin, wanted.subspan(begin), piece.compress);
}

Task<void> Difference::keep(uint64_t offset, ByteSpan bytes, bool compress) {
  if (bytes.empty()) co_return;
  const uint64_t cluster = target_->limits().cluster_bytes;
  const bool whole =
      compress && is_aligned(offset, cluster) &&
      (is_aligned(bytes.size(), cluster) || offset + bytes.size() == target_->length());
  // Where it holds something already, what is of no use any more is given up.
  const WriteFlags zeroes{.may_unmap = !options_.own_stays};
  try {
    if (offset >= data_end_ && is_zero(bytes)) {
      co_await target_->write_zeroes(offset, bytes.size(), zeroes);
      co_return;
    }
    const uint64_t written = written_.fetch_add(bytes.size()) + bytes.size();
    if (options_.most_output != 0 && written > options_.most_output)
      throw Error(ErrorKind::kTooLarge,
                  fmt::format("the content is larger than the {} bytes that may be written",
                              options_.most_output));
    // Nothing is compressed over what takes space.
    if (whole && !options_.own_stays) co_await target_->write_zeroes(offset, bytes.size(), zeroes);
    if (whole)
      co_await write_compressed(*target_, offset, bytes);
    else
      co_await target_->write(offset, bytes);
  } catch (const Error& error) {
    throw error.behind("Error while writing to " +
                       std::string(options_.own_stays ? "COW image" : "the target") + ": " +
                       error.cause());
  }
}

}  // namespace cairn
