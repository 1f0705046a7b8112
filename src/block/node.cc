#include "block/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "async/cancelled.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/range_copier.h"
#include "block/context.h"
#include "block/debug.h"
#include "block/driver.h"
#include "block/fixed_storage.h"
#include "block/request_counts.h"
#include "block/unaligned.h"

namespace cairn {
namespace {

// How much zero data one write of an emulated write_zeroes carries.
constexpr uint64_t kZeroBufferBytes = 1 << 20;

// The error that is being handled, of a request to DISK. Work that was cancelled while it waited
// for a server, or for its turn there, says for which disk.
std::exception_ptr request_failure(bool remote, const std::string& disk) {
  try {
    throw;
  } catch (const Error& error) {
    if (remote && says_only_cancelled(error))
      return std::make_exception_ptr(Error(error).context(disk));
  } catch (...) {
    return std::current_exception();
  }
  return std::current_exception();
}

template <class Work>
Task<void> count_while(RequestCounts* counts, RequestKind kind, uint64_t bytes, Work work) {
  CountedRequest counted(counts, kind, bytes);
  co_await work();
  counted.succeeded();
}

// The task that WORK gives, counted unless COUNTS is null: where nothing counts, this is one
// comparison.
template <class Work>
Task<void> counted(RequestCounts* counts, RequestKind kind, uint64_t bytes, Work work) {
  if (counts == nullptr) [[likely]]
    return work();
  return count_while(counts, kind, bytes, std::move(work));
}

}  // namespace

Node::Node(Context& context, const Driver& driver)
    : NodeBase(context, driver), storage_(driver.kind() == DriverKind::kProtocol) {}

// What an image has in memory cannot be written here, where nothing may wait. One without a name
// was never there: its creation failed.
Node::~Node() {
  if (closed_ || storage_ || filename_.empty() || !changed_.load(std::memory_order_relaxed)) return;
  try {
    context_.warn(filename_ +
                  ": the image was not closed: what was written to it last may be lost");
  } catch (...) {
    // There is nobody who could take it.
  }
}

void Node::check_range(uint64_t offset, uint64_t length) const {
  const auto end = checked_add(offset, length);
  if (!end || *end > static_cast<uint64_t>(INT64_MAX) || (!unbounded_ && *end > this->length()))
    throw Error(ErrorKind::kIo, "Input/output error")
        .hint(fmt::format("The range {}+{} leaves the disk of {} bytes.", offset, length,
                          this->length()));
}

// What people write past the end is their mistake. A format that does has found no room for what it
// was to store.
void Node::check_room(uint64_t offset, uint64_t length) const {
  const auto end = checked_add(offset, length);
  if (stores_another_ && !unbounded_ && end && *end <= static_cast<uint64_t>(INT64_MAX) &&
      *end > this->length())
    throw is_full(context_, this->length(), *end);
  check_range(offset, length);
}

void Node::check_writable() {
  if (read_only_) throw Error::system(EACCES, filename_ + ": the image is open read-only");
  if (!changed_.load(std::memory_order_relaxed)) changed_.store(true, std::memory_order_relaxed);
}

// --- reading ---

Task<void> Node::read(uint64_t offset, MutableByteSpan out) {
  return counted(counts(), RequestKind::kRead, out.size(), [this, offset, out] {
    check_range(offset, out.size());
    if (storage_ && context_.read_limit) return read_limited(offset, out);
    return read_inside(offset, out);
  });
}

Task<void> Node::read_limited(uint64_t offset, MutableByteSpan out) {
  co_await context_.read_limit->admit(out.size(), context_.cancel);
  co_await read_inside(offset, out);
}

Task<void> Node::read_inside(uint64_t offset, MutableByteSpan out) {
  return server_ ? read_watched(offset, out) : read_fitting(offset, out);
}

Task<void> Node::read_watched(uint64_t offset, MutableByteSpan out) {
  const ServerRequest waiting(server_.get());
  try {
    co_await read_fitting(offset, out);
  } catch (...) {
    std::rethrow_exception(request_failure(server_ != nullptr, filename_));
  }
}

Task<void> Node::read_fitting(uint64_t offset, MutableByteSpan out) {
  if (is_aligned(offset | out.size(), limits_.request_alignment) &&
      memory_fits(out.data(), limits_) &&
      (limits_.max_transfer == 0 || out.size() <= limits_.max_transfer))
    return do_read(offset, out);
  return read_unaligned(offset, out);
}

// --- writing ---

void Node::guard_block_zero(uint64_t offset, ByteSpan in) const {
  if (!probed_raw_ || offset >= 512 || in.empty()) return;
  std::vector<std::byte> head(2048);
  const size_t part = std::min<size_t>(in.size(), head.size() - offset);
  std::memcpy(head.data() + offset, in.data(), std::min<size_t>(part, 512 - offset));
  const Driver* found =
      context_.registry().probe({.head = head, .tail = {}, .length = 512, .filename = {}}, false);
  if (found != &driver_) throw Error::system(EPERM);
}

Task<void> Node::write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  return counted(counts(), RequestKind::kWrite, in.size(), [this, offset, in, flags] {
    check_room(offset, in.size());
    check_writable();
    note_written(offset + in.size());
    if (!dirty_bitmaps_.empty()) {
      const bool limited = storage_ && context_.write_limit;
      return watched(offset, in.size(),
                     limited ? write_limited(offset, in, flags) : write_marking(offset, in, flags));
    }
    if (storage_ && context_.write_limit) return write_limited(offset, in, flags);
    // A bitmap may come while the request is under way: looked for when it has ended. Storage is
    // left out of it where it has none, as what people use is above.
    if (!storage_) return write_marking(offset, in, flags);
    return write_inside(offset, in, flags);
  });
}

Task<void> Node::watched(uint64_t offset, uint64_t length, Task<void> work) {
  const std::shared_ptr<WriteWatch> watch = dirty_bitmaps_.watch();
  if (watch == nullptr) {
    co_await std::move(work);
    co_return;
  }
  co_await watch->before(offset, length);
  std::exception_ptr error;
  try {
    co_await std::move(work);
  } catch (...) {
    error = std::current_exception();
  }
  watch->after(offset, length);
  if (error) std::rethrow_exception(error);
}

Task<void> Node::write_limited(uint64_t offset, ByteSpan in, WriteFlags flags) {
  co_await context_.write_limit->admit(in.size(), context_.cancel);
  co_await write_marking(offset, in, flags);
}

// Whatever a request changed before it failed counts as well; and a reader that takes the mark away
// before the request has ended must find it again.
Task<void> Node::write_marking(uint64_t offset, ByteSpan in, WriteFlags flags) {
  std::exception_ptr error;
  try {
    co_await write_inside(offset, in, flags);
  } catch (...) {
    error = std::current_exception();
  }
  mark_written(offset, in.size());
  if (error) std::rethrow_exception(error);
}

Task<void> Node::write_inside(uint64_t offset, ByteSpan in, WriteFlags flags) {
  return server_ ? write_watched(offset, in, flags) : write_fitting(offset, in, flags);
}

Task<void> Node::write_watched(uint64_t offset, ByteSpan in, WriteFlags flags) {
  const ServerRequest waiting(server_.get());
  try {
    co_await write_fitting(offset, in, flags);
  } catch (...) {
    std::rethrow_exception(request_failure(server_ != nullptr, filename_));
  }
}

Task<void> Node::write_fitting(uint64_t offset, ByteSpan in, WriteFlags flags) {
  if (detect_zeroes_ == DetectZeroes::kOff && !write_through_ && !flags.fua && !probed_raw_ &&
      limits_.request_alignment == 1 && memory_fits(in.data(), limits_) &&
      (limits_.max_transfer == 0 || in.size() <= limits_.max_transfer))
    return do_write(offset, in, flags);
  return write_checked(offset, in, flags);
}

Task<void> Node::write_checked(uint64_t offset, ByteSpan in, WriteFlags flags) {
  const bool wanted = flags.fua || write_through_;
  flags.fua = wanted && limits_.native_fua && !no_flush_;
  const bool stable = wanted && !flags.fua;
  if (detect_zeroes_ != DetectZeroes::kOff && !in.empty() && is_zero(in)) {
    flags.may_unmap = detect_zeroes_ == DetectZeroes::kUnmap;
    co_await write_zeroes_checked(offset, in.size(), flags);
  } else if (limits_.request_alignment == 1 && memory_fits(in.data(), limits_)) {
    guard_block_zero(offset, in);
    const uint64_t most = limits_.max_transfer ? limits_.max_transfer : in.size();
    while (!in.empty()) {
      const size_t part = std::min<uint64_t>(in.size(), most);
      co_await do_write(offset, in.first(part), flags);
      offset += part;
      in = in.subspan(part);
    }
  } else {
    co_await write_unaligned(offset, in, flags);
  }
  if (stable) co_await flush();
}

Task<void> Node::write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  return counted(counts(), RequestKind::kZero, length, [this, offset, length, flags] {
    check_room(offset, length);
    check_writable();
    note_written(offset + length);
    if (!dirty_bitmaps_.empty())
      return watched(offset, length, write_zeroes_checked(offset, length, flags));
    return write_zeroes_checked(offset, length, flags);
  });
}

Task<void> Node::write_zeroes_checked(uint64_t offset, uint64_t length, WriteFlags flags) {
  const ServerRequest waiting(server_.get());
  const bool wanted = flags.fua || write_through_;
  flags.fua = wanted && limits_.native_fua && !no_flush_;
  const bool stable = wanted && !flags.fua;
  if (!discard_unmap_) flags.may_unmap = false;
  const uint64_t unit = splits_zeroes_ ? limits_.request_alignment : limits_.zero_alignment;
  const uint64_t end = offset + length;
  const uint64_t middle = std::min(align_up(offset, unit), end);
  // The end of the node counts as aligned: nobody else has a part of its last unit.
  const uint64_t middle_end =
      std::max(middle, end == this->length() && is_aligned(end, limits_.request_alignment)
                           ? end
                           : align_down(end, unit));
  bool emulate = false;
  std::exception_ptr failure;
  try {
    if (middle_end > middle) {
      try {
        co_await do_write_zeroes(middle, middle_end - middle, flags);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kUnsupported || flags.no_fallback) throw;
        emulate = true;
      }
    } else if (flags.no_fallback && length != 0) {
      throw Error::system(ENOTSUP);
    }
    if (emulate) {
      co_await write_zero_buffers(offset, length, flags);
    } else {
      co_await write_zero_buffers(offset, middle - offset, flags);
      co_await write_zero_buffers(middle_end, end - middle_end, flags);
    }
  } catch (...) {
    failure = request_failure(server_ != nullptr, filename_);
  }
  mark_written(offset, length);
  if (failure) std::rethrow_exception(failure);
  if (stable) co_await flush();
}

Task<void> Node::write_zero_buffers(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (length == 0) co_return;
  AlignedBuffer zeroes(std::min(length, kZeroBufferBytes));
  std::memset(zeroes.data(), 0, zeroes.size());
  while (length != 0) {
    const uint64_t part = std::min<uint64_t>(length, zeroes.size());
    const ByteSpan in = std::as_const(zeroes).span().first(part);
    if (limits_.request_alignment == 1)
      co_await do_write(offset, in, flags);
    else
      co_await write_unaligned(offset, in, flags);
    offset += part;
    length -= part;
  }
}

Task<void> Node::discard(uint64_t offset, uint64_t length) {
  CountedRequest counted(counts(), RequestKind::kDiscard, length);
  check_range(offset, length);
  check_writable();
  if (discard_unmap_) co_await watched(offset, length, discard_inside(offset, length));
  counted.succeeded();
}

Task<void> Node::discard_inside(uint64_t offset, uint64_t length) {
  const ServerRequest waiting(server_.get());
  const uint64_t unit = limits_.discard_alignment;
  const uint64_t begin = align_up(offset, unit);
  const uint64_t end =
      offset + length == this->length() ? this->length() : align_down(offset + length, unit);
  std::exception_ptr error;
  try {
    if (end > begin) co_await do_discard(begin, end - begin);
  } catch (const Error& caught) {
    // What is given up may as well be kept: storage that cannot do it has done enough.
    if (caught.kind() != ErrorKind::kUnsupported)
      error = request_failure(server_ != nullptr, filename_);
  } catch (...) {
    error = std::current_exception();
  }
  // All that was asked for is marked, as QEMU does.
  mark_dirty(offset, length);
  if (error) std::rethrow_exception(error);
}

Task<void> Node::flush() {
  if (no_flush_) co_return;
  CountedRequest counted(counts(), RequestKind::kFlush, 0);
  const ServerRequest waiting(server_.get());
  if (DebugPort* port = debug_below()) {
    co_await port->event(DebugEvent::kFlushToOs);
    co_await port->event(DebugEvent::kFlushToDisk);
  }
  try {
    co_await do_flush();
  } catch (...) {
    std::rethrow_exception(request_failure(server_ != nullptr, filename_));
  }
  counted.succeeded();
}

// --- extents ---

Task<Extent> Node::layer_extent_at(uint64_t offset, uint64_t max) {
  const uint64_t end = length();
  if (offset >= end || max == 0) {
    // Past the end: what an unbounded node reads there.
    Extent beyond;
    beyond.length = max;
    beyond.zero = true;
    co_return beyond;
  }
  max = std::min(max, end - offset);
  const ServerRequest waiting(server_.get());
  Extent extent;
  try {
    extent = co_await do_extent(offset, max);
  } catch (...) {
    std::rethrow_exception(request_failure(server_ != nullptr, filename_));
  }
  extent.length = std::min(extent.length, max);
  co_return extent;
}

Task<Extent> Node::extent_at(uint64_t offset, uint64_t max) {
  check_range(offset, max);
  Node* layer = this;
  unsigned depth = 0;
  while (true) {
    Extent extent = co_await layer->layer_extent_at(offset, max);
    max = extent.length;
    Node* below = layer->layer_below();
    if (extent.allocated || below == nullptr) {
      extent.depth = depth + extent.depth;
      if (!extent.allocated) extent.zero = true;
      co_return extent;
    }
    if (offset >= below->length()) {
      extent.depth = depth;
      extent.zero = true;
      co_return extent;
    }
    max = std::min(max, below->length() - offset);
    layer = below;
    ++depth;
  }
}

// --- size, closing ---

Task<void> Node::resize(ResizeRequest request) {
  check_writable();
  const DriverTraits& traits = driver_.traits();
  if (request.round_up && traits.kind == DriverKind::kFormat && !traits.verbatim) {
    if (!checked_add(request.length, 511)) throw Error::system(EFBIG);
    request.length = align_up(request.length, 512);
  }
  dirty_bitmaps_.check_resize(request.length);
  const ServerRequest waiting(server_.get());
  try {
    if (traits.extensions.resize && !context_.profile.extensions)
      co_await Node::do_resize(request);
    else
      co_await do_resize(request);
  } catch (...) {
    std::rethrow_exception(request_failure(server_ != nullptr, filename_));
  }
  if (!dirty_bitmaps_.empty()) dirty_bitmaps_.resize(length());
}

Task<void> Node::close() {
  if (closed_ || kept_) co_return;
  closed_ = true;
  // Whether nothing can be lost: the storage was not changed, and no format holds changes for it.
  const auto untouched = [](const Node* node) {
    for (; node != nullptr; node = node->file()) {
      if (node->nothing_written()) return true;
      if (node->changed_ && !node->driver_.traits().verbatim) return false;
    }
    return false;
  };
  std::exception_ptr error;
  try {
    // Where nobody waits for stable storage, what a format has not written yet is written anyway.
    if (!read_only_ && no_flush_ && !storage_)
      co_await do_flush();
    else if (!read_only_)
      co_await flush();
  } catch (const Error& caught) {
    // An image that was found damaged is out of use: the request that met the damage has failed.
    // So has every request where nothing was written.
    if (caught.kind() != ErrorKind::kNoMedium && !untouched(this)) error = std::current_exception();
  } catch (...) {
    error = std::current_exception();
  }
  try {
    co_await do_close();
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  for (Child& child : children_) {
    try {
      co_await child.node->close();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

Task<bool> Node::copy_range_from(Node& source, uint64_t source_offset, uint64_t offset,
                                 uint64_t length) {
  check_room(offset, length);
  source.check_range(source_offset, length);
  check_writable();
  bool copied = false;
  co_await watched(offset, length, copy_inside(source, source_offset, offset, length, &copied));
  co_return copied;
}

Task<void> Node::copy_inside(Node& source, uint64_t source_offset, uint64_t offset, uint64_t length,
                             bool* done) {
  std::exception_ptr error;
  bool copied = false;
  try {
    if (Node* inner = filtered()) {
      copied = co_await inner->copy_range_from(source, source_offset, offset, length);
    } else {
      Node* from = &source;
      while (from->filtered() != nullptr) from = from->filtered();
      if (storage_ && context_.read_limit)
        co_await context_.read_limit->admit(length, context_.cancel);
      if (storage_ && context_.write_limit)
        co_await context_.write_limit->admit(length, context_.cancel);
      if (auto* copier = as<RangeCopier>())
        copied = co_await copier->copy_range(*from, source_offset, offset, length);
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (copied || error) {
    note_written(offset + length);
    mark_written(offset, length);
  }
  if (error) std::rethrow_exception(error);
  *done = copied;
}

}  // namespace cairn
