#include "protocol/sheepdog/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/arith.h"
#include "block/context.h"
#include "protocol/driver_options.h"

namespace cairn::sheepdog {
namespace {

constexpr uint64_t kMaxTransfer = 4 << 20;
constexpr uint64_t kZeroBytes = 1 << 20;  // of a buffer of zeroes
// Entries of the index that are given up at a time.
constexpr uint64_t kUnmapEntries = 128;
// How often a request follows a VDI of which snapshots are being made.
constexpr unsigned kMostReloads = 4;

}  // namespace

SheepdogNode::SheepdogNode(Context& context, const Driver& driver, Target target, VdiName name,
                           bool writable, std::string filename)
    : Node(context, driver),
      cluster_(context.runtime(), std::move(target)),
      name_(std::move(name)),
      writable_(writable) {
  set_filename(std::move(filename));
  Limits& limits = mutable_limits();
  limits.remote = true;
  limits.native_fua = true;
  limits.max_transfer = kMaxTransfer;
}
SheepdogNode::~SheepdogNode() = default;

Task<void> SheepdogNode::connect() {
  if (writable_ && name_.is_snapshot())
    throw Error(ErrorKind::kDenied, "A snapshot of a VDI cannot be written")
        .hint("Make a clone of it: create -b SNAPSHOT CLONE.");
  co_await cluster_.open();
  uint32_t vdi = 0;
  if (writable_) {
    vdi = co_await lock_vdi(cluster_, name_.name);
    locked_ = true;
    co_await cluster_.keep_lock(name_.name, vdi);
  } else {
    vdi = co_await find_vdi(cluster_, name_);
  }
  auto guard = co_await state_.exclusive();
  std::exception_ptr error;
  try {
    co_await load(vdi);
  } catch (...) {
    error = std::current_exception();
  }
  // What was locked is known by its number alone.
  if (error) inode_.vdi = vdi;
  if (error) std::rethrow_exception(error);
  shift_ = inode_.shift;
  mutable_limits().discard_alignment = object_bytes();
  set_read_only(!writable_);
}

// --- the state of the VDI ---

Task<void> SheepdogNode::load(uint32_t vdi) {
  const Inode inode = co_await read_inode(cluster_, vdi);
  if (inode.name != name_.name)
    throw Error(ErrorKind::kCorrupt, "The inode of the VDI '" + name_.name + "' has another name");
  if (writable_ && inode.is_snapshot())
    throw Error(ErrorKind::kCorrupt,
                "The working VDI '" + name_.name + "' is a snapshot by its inode");
  if (inode_.shift != 0 && inode.shift != inode_.shift)
    throw Error(ErrorKind::kCorrupt,
                "The size of the objects of the VDI '" + name_.name + "' has changed");
  std::vector<uint32_t> index = co_await read_index(cluster_, vdi, 0, inode.object_count());
  inode_ = inode;
  index_ = std::move(index);
  set_length(inode.size);
}

// Somebody may have made the VDI smaller while a request waited.
void SheepdogNode::check_entry(uint64_t number) const {
  if (number >= index_.size())
    throw Error(ErrorKind::kIo, "The VDI '" + name_.name + "' has shrunk");
}

uint32_t SheepdogNode::entry(uint64_t number) {
  check_entry(number);
  return std::atomic_ref(index_[number]).load(std::memory_order_acquire);
}
void SheepdogNode::set_entry(uint64_t number, uint32_t vdi) {
  check_entry(number);
  std::atomic_ref(index_[number]).store(vdi, std::memory_order_release);
}

// A daemon that does not release the lock of an old VDI has none of it.
Task<void> SheepdogNode::move_lock(uint32_t from) {
  if (!locked_) co_return;
  try {
    co_await release_vdi(cluster_, from);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalid) throw;
  }
  locked_ = false;
  inode_.vdi = co_await lock_vdi(cluster_, name_.name);
  locked_ = true;
  co_await cluster_.keep_lock(name_.name, inode_.vdi);
}

// The working VDI may have another number since it was opened.
Task<void> SheepdogNode::follow() {
  const uint32_t before = inode_.vdi;
  const uint64_t length = this->length();
  const uint32_t now = co_await find_vdi(cluster_, name_);
  if (now != before) co_await move_lock(before);
  co_await load(now != before && locked_ ? inode_.vdi : now);
  if (this->length() < length)
    throw Error(ErrorKind::kIo, "The VDI '" + name_.name + "' has shrunk");
}

Task<void> SheepdogNode::reload(uint32_t used) {
  auto guard = co_await state_.exclusive();
  if (inode_.vdi == used) co_await follow();
}

// --- data ---

SheepdogNode::Piece SheepdogNode::piece_at(uint64_t offset, uint64_t length) const {
  const uint64_t within = offset & (object_bytes() - 1);
  return {.number = offset >> shift_,
          .offset = static_cast<uint32_t>(within),
          .length = std::min(length, object_bytes() - within)};
}

Task<Result> SheepdogNode::read_object(Piece piece, MutableByteSpan out, uint32_t* used) {
  auto state = co_await state_.shared();
  RangeLock::Guard held;
  co_await objects_.acquire(held, piece.number, 1, false);
  *used = inode_.vdi;
  const uint32_t has = piece.number < index_.size() ? entry(piece.number) : 0;
  if (has == 0) {
    std::memset(out.data(), 0, out.size());
    co_return Result::kSuccess;
  }
  Operation operation;
  operation.header = object_header(
      Opcode::kReadObject,
      {.object = data_object(has, piece.number), .copy_from = {}, .offset = piece.offset});
  operation.out = out;
  const Result result = co_await cluster_.ask(operation);
  co_return result;
}

Task<void> SheepdogNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t end = length();
  const size_t there = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  std::memset(out.data() + there, 0, out.size() - there);
  for (size_t done = 0; done < there;) {
    const Piece piece = piece_at(offset + done, there - done);
    for (unsigned attempt = 0;; ++attempt) {
      uint32_t used = 0;
      const Result result = co_await read_object(piece, out.subspan(done, piece.length), &used);
      if (result == Result::kSuccess) break;
      if (!is_outdated(result) || attempt == kMostReloads)
        throw_result(result, fmt::format("Object {} of the VDI '{}' cannot be read", piece.number,
                                         name_.name));
      co_await reload(used);
    }
    done += piece.length;
  }
}

// The object is held: exclusively when the VDI has it not itself.
Task<Result> SheepdogNode::write_held(Piece piece, ByteSpan in, uint32_t has) {
  const uint32_t own = inode_.vdi;
  ObjectFields fields{
      .object = data_object(own, piece.number), .copy_from = {}, .offset = piece.offset};
  const bool whole = piece.length == object_bytes();
  if (has != own && has != 0 && !whole) fields.copy_from = data_object(has, piece.number);
  Operation operation;
  operation.header =
      object_header(has == own ? Opcode::kWriteObject : Opcode::kCreateObject, fields);
  operation.data = in;
  const Result result = co_await cluster_.ask(operation);
  if (result != Result::kSuccess || has == own) co_return result;
  std::array<std::byte, 4> raw;
  store_le<uint32_t>(raw, 0, own);
  co_await write_inode(cluster_, own, kIndexOffset + piece.number * 4, raw);
  set_entry(piece.number, own);
  const bool current = co_await is_current();
  co_return current ? result : Result::kReadOnly;
}

Task<Result> SheepdogNode::write_object(Piece piece, ByteSpan in, uint32_t* used) {
  auto state = co_await state_.shared();
  *used = inode_.vdi;
  bool exclusive = entry(piece.number) != inode_.vdi;
  while (true) {
    RangeLock::Guard held;
    co_await objects_.acquire(held, piece.number, 1, exclusive);
    const uint32_t has = entry(piece.number);
    // It was given up meanwhile.
    if (has != inode_.vdi && !exclusive) {
      exclusive = true;
      continue;
    }
    const Result result = co_await write_held(piece, in, has);
    co_return result;
  }
}

Task<void> SheepdogNode::write_piece(Piece piece, ByteSpan in) {
  for (unsigned attempt = 0;; ++attempt) {
    uint32_t used = 0;
    const Result result = co_await write_object(piece, in, &used);
    if (result == Result::kSuccess) co_return;
    if (!is_outdated(result) || attempt == kMostReloads)
      throw_result(result, fmt::format("Object {} of the VDI '{}' cannot be written", piece.number,
                                       name_.name));
    co_await reload(used);
  }
}

Task<void> SheepdogNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  if (in.empty()) co_return;
  if (offset + in.size() > length()) co_await grow(offset + in.size());
  for (size_t done = 0; done < in.size();) {
    const Piece piece = piece_at(offset + done, in.size() - done);
    co_await write_piece(piece, in.subspan(done, piece.length));
    done += piece.length;
  }
}

Task<void> SheepdogNode::write_zero_bytes(Piece piece) {
  const std::vector<std::byte> zeroes(std::min(piece.length, kZeroBytes));
  while (piece.length != 0) {
    Piece part = piece;
    part.length = std::min<uint64_t>(piece.length, zeroes.size());
    co_await write_piece(part, ByteSpan(zeroes).first(part.length));
    piece.offset += static_cast<uint32_t>(part.length);
    piece.length -= part.length;
  }
}

Task<bool> SheepdogNode::holds(uint64_t number) {
  auto state = co_await state_.shared();
  co_return number < index_.size() && entry(number) != 0;
}

Task<void> SheepdogNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (offset + length > this->length()) co_await grow(offset + length);
  const uint64_t end = offset + length;
  while (offset < end) {
    const Piece piece = piece_at(offset, end - offset);
    const bool whole = piece.offset == 0 &&
                       (piece.length == object_bytes() || offset + piece.length == this->length());
    if (whole) {
      uint64_t count = piece.length >> shift_;
      if (count != 0) count = (end - offset) >> shift_;
      // The last object of a VDI may be a part of one.
      if (offset + (count << shift_) < end && end == this->length()) ++count;
      co_await unmap(piece.number, count);
      offset = std::min(end, offset + (count << shift_));
      continue;
    }
    const bool any = co_await holds(piece.number);
    if (any) {
      if (flags.no_fallback) throw Error::system(ENOTSUP);
      co_await write_zero_bytes(piece);
    }
    offset += piece.length;
  }
}

Task<void> SheepdogNode::do_discard(uint64_t offset, uint64_t length) {
  const uint64_t end = std::min(offset + length, this->length());
  const uint64_t first = div_ceil(offset, object_bytes());
  const uint64_t last = end == this->length() ? div_ceil(end, object_bytes()) : end >> shift_;
  if (first < last) co_await unmap(first, last - first);
}

// Whether the cluster still has this as the working VDI. A change of the index is in it only when
// it was before a snapshot that somebody else made; nothing but a look afterwards says so. In the
// snapshot, which was made meanwhile, it may be or not.
Task<bool> SheepdogNode::is_current() {
  const uint32_t now = co_await find_vdi(cluster_, name_);
  co_return now == inode_.vdi;
}

// False when the VDI is another one by now: what is now a snapshot must keep its content.
Task<bool> SheepdogNode::unmap_held(uint64_t first, uint64_t count, uint32_t* used) {
  auto state = co_await state_.shared();
  RangeLock::Guard held;
  co_await objects_.acquire(held, first, count, true);
  *used = inode_.vdi;
  const uint64_t end = std::min<uint64_t>(first + count, index_.size());
  const bool any = std::any_of(index_.begin() + static_cast<ptrdiff_t>(std::min(first, end)),
                               index_.begin() + static_cast<ptrdiff_t>(end),
                               [](uint32_t vdi) { return vdi != 0; });
  if (!any) co_return true;
  bool current = co_await is_current();
  if (!current) co_return false;
  while (first < end) {
    const uint64_t part = std::min(end - first, kUnmapEntries);
    co_await clear_index(cluster_, inode_.vdi, index_, first, part);
    for (uint64_t i = 0; i < part; ++i) set_entry(first + i, 0);
    first += part;
  }
  current = co_await is_current();
  co_return current;
}

Task<void> SheepdogNode::unmap(uint64_t first, uint64_t count) {
  for (unsigned attempt = 0;; ++attempt) {
    uint32_t used = 0;
    const bool done = co_await unmap_held(first, count, &used);
    if (done) co_return;
    if (attempt == kMostReloads)
      throw_result(Result::kReadOnly, "The VDI '" + name_.name + "' cannot be written");
    co_await reload(used);
  }
}

// What daemons have answered is on their disks; old ones with a cache must be asked.
Task<void> SheepdogNode::do_flush() {
  if (!writable_ || !can_flush_) co_return;
  Operation operation;
  {
    auto state = co_await state_.shared();
    operation.header = object_header(
        Opcode::kFlushVdi, {.object = inode_object(inode_.vdi), .copy_from = {}, .offset = 0});
  }
  const Result result = co_await cluster_.ask(operation);
  if (result == Result::kInvalid)
    can_flush_ = false;
  else if (result != Result::kSuccess)
    throw_result(result, "The VDI '" + name_.name + "' cannot be flushed");
}

Task<Extent> SheepdogNode::do_extent(uint64_t offset, uint64_t max) {
  auto state = co_await state_.shared();
  Extent extent;
  extent.allocated = true;
  const uint64_t end = std::min(offset + max, length());
  uint64_t number = offset >> shift_;
  const bool data = number < index_.size() && entry(number) != 0;
  while (++number < index_.size() && number << shift_ < end && (entry(number) != 0) == data) {
  }
  extent.length = std::min(max, (number << shift_) - offset);
  extent.data = data;
  extent.zero = !data;
  // Places are those of the disk by its name.
  if (data && !shows_other_) {
    extent.host = this;
    extent.host_offset = offset;
  }
  co_return extent;
}

Task<std::optional<uint64_t>> SheepdogNode::allocated_bytes() {
  auto state = co_await state_.shared();
  uint64_t objects = 0;
  for (uint64_t i = 0; i < index_.size(); ++i)
    if (entry(i) == inode_.vdi) ++objects;
  co_return objects << shift_;
}

// --- size, closing ---

Task<void> SheepdogNode::grow_held(uint64_t length) {
  if (length <= this->length()) co_return;
  if (length > kMaxObjects << shift_)
    throw Error(ErrorKind::kTooLarge,
                fmt::format("A VDI with objects of {} bytes has at most {} bytes", object_bytes(),
                            kMaxObjects << shift_));
  std::array<std::byte, 8> raw;
  store_le<uint64_t>(raw, 0, length);
  // A snapshot must not be changed.
  for (unsigned attempt = 0;; ++attempt) {
    co_await follow();
    co_await write_inode(cluster_, inode_.vdi, kSizeFieldOffset, raw);
    const bool current = co_await is_current();
    if (current) break;
    if (attempt == kMostReloads)
      throw_result(Result::kReadOnly, "The VDI '" + name_.name + "' cannot grow");
  }
  inode_.size = length;
  const uint64_t before = index_.size();
  const uint64_t count = inode_.object_count();
  if (count > before) {
    const std::vector<uint32_t> more =
        co_await read_index(cluster_, inode_.vdi, before, count - before);
    index_.insert(index_.end(), more.begin(), more.end());
  }
  set_length(length);
}

Task<void> SheepdogNode::grow(uint64_t length) {
  auto guard = co_await state_.exclusive();
  co_await grow_held(length);
}

Task<void> SheepdogNode::do_resize(ResizeRequest request) {
  const bool full = request.preallocation == Preallocation::kFull;
  if (!full) refuse_preallocation(request.preallocation);
  const uint64_t before = length();
  if (request.length < before) {
    if (!request.exact) co_return;
    throw Error(ErrorKind::kUnsupported, "Sheepdog VDIs cannot shrink");
  }
  co_await grow(request.length);
  for (uint64_t at = before; full && at < request.length;) {
    const Piece piece = piece_at(at, request.length - at);
    co_await write_zero_bytes(piece);
    at += piece.length;
  }
}

Task<void> SheepdogNode::do_close() {
  co_await cluster_.stop_repairs();
  std::exception_ptr error;
  if (locked_) {
    locked_ = false;
    try {
      co_await release_vdi(cluster_, inode_.vdi);
    } catch (const Error&) {
      // What was written is written; the lock ends with the daemon.
    }
  }
  co_await cluster_.close();
}

}  // namespace cairn::sheepdog
