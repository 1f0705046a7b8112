#include "protocol/file/file_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "async/runtime.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/fixed_storage.h"
#include "block/work_report.h"
#include "platform/device.h"
#include "protocol/file/alignment.h"

namespace cairn {

using platform::Allocation;

namespace {

bool not_there(int error) {
  return error == ENODEV || error == ENOSYS || error == EOPNOTSUPP || error == ENOTTY;
}

uint64_t length_of(int fd, const std::string& path) {
  const auto end = platform::end_of(fd);
  if (!end) throw Error::system(errno, "Could not find the size of '" + path + "'");
  return *end;
}

}  // namespace

FileNode::FileNode(Context& context, const Driver& driver, std::string path, int fd, FileKind kind)
    : Node(context, driver), path_(platform::shown_path(std::move(path))), fd_(fd), kind_(kind) {
  io_.fd = fd;
}

FileNode::~FileNode() {
  if (fd_ >= 0) platform::close(fd_);
}

void FileNode::inspect(bool direct) {
  if (!is_device()) io_.memory_backed = platform::lives_in_memory(fd_);
  io_.direct = direct;
  set_length(length_of(fd_, path_));
  const uint32_t block = is_device() ? platform::logical_block_bytes(fd_).value_or(512) : 1;
  if (direct || (is_device() && platform::takes_whole_blocks(fd_))) {
    const uint32_t whole = is_device() ? platform::logical_block_bytes(fd_).value_or(0) : 0;
    const Alignment found = find_alignment(fd_, whole);
    mutable_limits().request_alignment = found.request;
    mutable_limits().memory_alignment = found.memory;
  }
  if (direct && !is_device()) open_tail();
  mutable_limits().discard_alignment = block;
  mutable_limits().zero_alignment = block;
}

void FileNode::open_tail() {
  if (platform::is_writable(fd_)) tail_fd_ = OwnFd(platform::reopen_for_writing(fd_));
}

void FileNode::lock(Permissions permissions, Locking mode) {
  locks_ = std::make_unique<ImageLocks>(fd_, path_, mode, context().warn);
  locks_->change(permissions);
}

Task<void> FileNode::set_permissions(Permissions permissions) {
  if (locks_) locks_->change(permissions);
  co_return;
}

Task<void> FileNode::do_read(uint64_t offset, MutableByteSpan out) {
  // Others may have made the file longer: what is read shows where it ends now.
  const bool past_end = !is_device() && offset + out.size() > length();
  RwLock::Guard guard;
  if (past_end) guard = co_await end_lock_.shared();
  while (!out.empty()) {
    const iovec buffer{out.data(), out.size()};
    const ssize_t got = co_await io_readv(io_, {&buffer, 1}, offset);
    if (got < 0)
      throw Error::system(static_cast<int>(-got),
                          fmt::format("{}: reading {} bytes at {}", path_, out.size(), offset));
    if (got == 0) {
      // A file that others cut off reads as zeroes; a device does not lose its end but by a fault.
      if (is_device() && offset < length())
        throw Error(ErrorKind::kIo,
                    fmt::format("{}: the device now ends before byte {}, it was opened with {}",
                                path_, offset, length()));
      std::memset(out.data(), 0, out.size());
      co_return;
    }
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
    if (past_end) raise_length(offset);
    // Direct I/O stops at the end of the file; the odd rest is not readable on its own.
    if (io_.direct && offset >= length()) {
      std::memset(out.data(), 0, out.size());
      co_return;
    }
  }
}

Task<RwLock::Guard> FileNode::hold_end(uint64_t end) {
  RwLock::Guard guard;
  if (!is_device() && end > length()) guard = co_await end_lock_.shared();
  co_return guard;
}

Task<void> FileNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  forget_extent();
  const RwLock::Guard guard = co_await hold_end(offset + in.size());
  // Direct I/O knows whole blocks only; the last one of a file may be short.
  const size_t tail = io_.direct ? in.size() % limits().request_alignment : 0;
  co_await write_part(io_, offset, in.first(in.size() - tail));
  if (tail == 0) co_return;
  if (!tail_fd_)
    throw Error(
        ErrorKind::kUnsupported,
        fmt::format(
            "{}: the last {} bytes cannot be written: they are less than a block of direct I/O",
            path_, tail))
        .hint("Use another cache mode, such as writeback.");
  IoFile buffered = io_;
  buffered.fd = tail_fd_.get();
  buffered.direct = false;
  co_await write_part(buffered, offset + in.size() - tail, in.last(tail));
}

Task<void> FileNode::write_part(IoFile file, uint64_t offset, ByteSpan in) {
  while (!in.empty()) {
    const iovec buffer{const_cast<std::byte*>(in.data()), in.size()};
    ssize_t put = 0;
    if (file.memory_backed)
      put = co_await turns_.write(file, {&buffer, 1}, offset);
    else
      put = co_await io_writev(file, {&buffer, 1}, offset);
    if (put < 0)
      throw Error::system(static_cast<int>(-put),
                          fmt::format("{}: writing {} bytes at {}", path_, in.size(), offset));
    if (put == 0) throw Error::system(EINVAL, path_ + ": nothing was written");
    offset += static_cast<uint64_t>(put);
    in = in.subspan(static_cast<size_t>(put));
    raise_length(offset);
  }
  note_written();
}

// False when the file system does not know the operation (then WORKS is cleared) or refuses this
// range.
Task<bool> FileNode::allocate(platform::Allocation what, uint64_t offset, uint64_t length,
                              std::atomic<bool>* works) {
  if (works != nullptr && !works->load(std::memory_order_relaxed)) co_return false;
  const int result = co_await io_allocate(io_, what, offset, length);
  if (result == 0) {
    note_written();
    co_return true;
  }
  if (not_there(-result)) {
    if (works != nullptr) works->store(false, std::memory_order_relaxed);
    co_return false;
  }
  if (-result == EINVAL || -result == EBUSY) co_return false;
  throw Error::system(-result, fmt::format("{}: allocating at {}", path_, offset));
}

Task<void> FileNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  forget_extent();
  const uint64_t end = offset + length;
  const RwLock::Guard guard = co_await hold_end(end);
  bool done = false;
  if (flags.may_unmap) {
    done = co_await allocate(Allocation::kPunch, offset, length, &can_punch_);
    // Punching does not move the end of a file. Others may be writing past it: it only grows.
    if (done && !is_device() && end > this->length()) {
      if (platform::allocate(fd_, Allocation::kReserve, end - 1, 1) != 0)
        throw Error::system(errno, path_);
    }
  }
  // The kernel zeroes a device by writing where it has no better way: no help without a fallback.
  if (!done && !(is_device() && flags.no_fallback))
    done = co_await allocate(Allocation::kZero, offset, length, &can_zero_);
  if (!done && !is_device()) {
    done = co_await allocate(Allocation::kPunch, offset, length, &can_punch_);
    if (done) {
      const bool reserved = co_await allocate(Allocation::kReserve, offset, length, nullptr);
      done = reserved;
    }
    if (!done && offset >= this->length())
      done = co_await allocate(Allocation::kReserve, offset, length, nullptr);
  }
  if (!done) throw Error::system(ENOTSUP);
  if (!is_device()) raise_length(end);
}

Task<void> FileNode::do_discard(uint64_t offset, uint64_t length) {
  forget_extent();
  if (is_device()) {
    if (can_discard_.load(std::memory_order_relaxed)) {
      const int error = co_await run_blocking(
          [&] { return platform::discard_blocks(fd_, offset, length) == 0 ? 0 : errno; });
      if (not_there(error))
        can_discard_.store(false, std::memory_order_relaxed);
      else if (error != 0)
        throw Error::system(error, fmt::format("{}: discarding at {}", path_, offset));
    }
    note_written();
    co_return;
  }
  // A hint: a file system that cannot is no error.
  static_cast<void>(co_await allocate(Allocation::kPunch, offset, length, &can_punch_));
}

Task<void> FileNode::do_flush() {
  // Once the kernel lost a write, its page cache cannot be trusted any more: later flushes that
  // "succeed" would hide the loss.
  if (const int error = flush_error_.load(); error != 0)
    throw Error::system(error, path_ + ": an earlier flush failed");
  if (read_only()) co_return;
  const int result = co_await io_fdatasync(io_);
  // Character devices have nothing to flush.
  if (result == 0 || (result == -EINVAL && is_device())) co_return;
  if (!io_.direct) flush_error_.store(-result);
  throw Error::system(-result, path_ + ": flushing");
}

void FileNode::forget_extent() {
  std::lock_guard lock(extent_mutex_);
  extent_begin_ = extent_end_ = 0;
}

Task<Extent> FileNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.allocated = true;
  extent.host = this;
  extent.host_offset = offset;
  extent.length = max;
  std::unique_lock lock(extent_mutex_);
  if (offset < extent_begin_ || offset >= extent_end_) {
    const auto data = is_device() ? offset : platform::next_data(fd_, offset);
    const int error = data ? 0 : errno;
    extent_begin_ = offset;
    extent_data_ = true;
    extent_end_ = offset + max;
    if (error == ENXIO) {
      extent_data_ = false;
      extent_end_ = std::max(length(), offset + max);
    } else if (data && *data > offset) {
      extent_data_ = false;
      extent_end_ = *data;
    } else if (data && !is_device()) {
      const auto hole = platform::next_hole(fd_, offset);
      if (hole && *hole > offset) extent_end_ = *hole;
    }
  }
  extent.length = std::min(max, extent_end_ - offset);
  extent.data = extent_data_;
  extent.zero = !extent_data_;
  co_return extent;
}

constexpr uint64_t kAllocatedAtATime = uint64_t{64} << 20;

namespace {

// Whether the file system of FD says that LENGTH bytes more do not fit, so that a file that cannot
// be allocated anyway does not fill it up first. Some file systems say nothing: these are tried.
bool surely_full(int fd, uint64_t length) {
  const auto free = platform::free_bytes(fd);
  return free && *free < length;
}

}  // namespace

void resize_file(int fd, uint64_t old_length, uint64_t length, Preallocation mode,
                 const Context& context) {
  if (mode != Preallocation::kOff && length < old_length)
    throw Error(ErrorKind::kInvalid, "Preallocation can only be used for growing images");
  int error = 0;
  const CancelSource* cancel = context.cancel;
  const auto cancelled = [&] { return cancel != nullptr && cancel->requested(); };
  std::string what = "Could not resize file";
  switch (mode) {
    case Preallocation::kMetadata:
      throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode: metadata");
    case Preallocation::kOff:
      if (platform::set_length(fd, length) != 0) error = errno;
      break;
    case Preallocation::kFalloc:
      if (length == old_length) return;
      if (surely_full(fd, length - old_length)) error = ENOSPC;
      for (uint64_t at = old_length; at < length && error == 0 && !cancelled();
           at += kAllocatedAtATime) {
        report_work(context, "preallocate", at - old_length, length - old_length);
        error = platform::reserve(fd, at, std::min(kAllocatedAtATime, length - at));
      }
      report_work(context, "preallocate", length - old_length, length - old_length);
      what = "Could not preallocate new data";
      break;
    case Preallocation::kFull: {
      if (platform::set_length(fd, length) != 0) {
        error = errno;
        break;
      }
      what = "Could not write zeros for preallocation";
      AlignedBuffer zeroes(1 << 20);
      std::memset(zeroes.data(), 0, zeroes.size());
      for (uint64_t at = old_length; at < length && error == 0 && !cancelled();) {
        const size_t part = std::min<uint64_t>(zeroes.size(), length - at);
        const ssize_t put = platform::write_at(fd, zeroes.data(), part, at);
        if (put < 0 && errno != EINTR) error = errno;
        if (put > 0) at += static_cast<uint64_t>(put);
        report_work(context, "preallocate", at - old_length, length - old_length);
      }
      if (error == 0 && !cancelled() && platform::sync(fd) != 0) error = errno;
      break;
    }
  }
  const bool stopped = error == 0 && mode != Preallocation::kOff && cancelled();
  if (error == 0 && !stopped) return;
  if (mode != Preallocation::kOff && platform::set_length(fd, old_length) != 0)
    what += " (nor restore the old length)";
  if (stopped) cancel->check();
  if (error == EFBIG && mode == Preallocation::kOff)
    throw Error(ErrorKind::kTooLarge, "The image size is too large for file format 'raw'");
  throw Error::system(error, what);
}

Task<void> FileNode::do_resize(ResizeRequest request) {
  if (is_device()) {
    if (request.preallocation != Preallocation::kOff)
      throw Error(ErrorKind::kUnsupported, "Preallocation mode '" +
                                               std::string(to_string(request.preallocation)) +
                                               "' unsupported for this non-regular file");
    if (request.exact && request.length != length())
      throw Error(ErrorKind::kUnsupported, "Cannot resize device files");
    if (request.length > length())
      throw too_small(context(), ErrorKind::kInvalid, "Cannot grow device files", length(),
                      request.length);
    co_return;
  }
  forget_extent();
  const RwLock::Guard guard = co_await end_lock_.exclusive();
  // What only needs room must not cut off what others have written meanwhile.
  if (!request.exact && request.length <= length()) co_return;
  co_await run_blocking([&] {
    const ResizeLock lock(locks_.get());
    resize_file(fd_, length(), request.length, request.preallocation, context());
  });
  set_length(request.length);
  note_written();
}

Task<std::optional<uint64_t>> FileNode::allocated_bytes() {
  const auto status = platform::status_of(fd_);
  if (!status) co_return std::nullopt;
  co_return is_device() ? 0 : status->allocated;
}

// The number of the file system is another one after a new start of the machine.
Identity FileNode::identity() const {
  if (is_device()) return {};
  const auto status = platform::status_of(fd_);
  if (!status) return {};
  return {.object = "inode " + std::to_string(status->number),
          .state = modified_at(status->modified, status->modified_nanoseconds)};
}

Value FileNode::specific_info() const {
  Value data = Value::object();
  if (is_device()) return data;
  if (const auto hint = platform::extent_size_hint(fd_)) data.set("extent-size-hint", *hint);
  return data;
}

Task<void> FileNode::do_close() {
  if (drop_cache_) forget_extent();
  tail_fd_ = OwnFd();
  if (fd_ >= 0) platform::close(std::exchange(fd_, -1));
  co_return;
}

Task<bool> FileNode::copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                                uint64_t length) {
  auto* from = dynamic_cast<FileNode*>(&source);
  if (from == nullptr || is_device() || from->is_device() || io_.direct || from->io_.direct)
    co_return false;
  forget_extent();
  RwLock::Guard guard = co_await hold_end(offset + length);
  uint64_t done = 0;
  while (done < length) {
    const ssize_t copied = co_await run_blocking([&]() -> ssize_t {
      const ssize_t got =
          platform::copy_range(from->fd_, source_offset + done, fd_, offset + done, length - done);
      return got < 0 ? -errno : got;
    });
    if (copied == -EINTR) continue;
    if (copied < 0 || (copied == 0 && done == 0)) {
      if (done == 0) co_return false;
      throw Error::system(static_cast<int>(-copied), path_ + ": copying");
    }
    if (copied == 0) {
      // The source ends here; what it lacks reads as zeroes.
      raise_length(offset + done);
      guard.release();
      co_await write_zeroes(offset + done, length - done);
      break;
    }
    done += static_cast<uint64_t>(copied);
  }
  raise_length(offset + length);
  note_written();
  co_return true;
}

}  // namespace cairn
