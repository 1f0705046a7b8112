#include "protocol/gluster/node.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn::gluster {
namespace {

// Bricks write zeroes as data where their file systems cannot do better, and answer afterwards.
constexpr uint64_t kZeroedAtATime = 64 << 20, kDiscardedAtATime = 1 << 30;

bool not_there(int error) { return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL; }

}  // namespace

GlusterNode::GlusterNode(Context& context, const Driver& driver, Volumes& volumes,
                         Location location, Settings settings, bool writable, bool direct)
    : Node(context, driver),
      library_(GfapiLibrary::get()),
      volumes_(volumes),
      location_(std::move(location)),
      settings_(std::move(settings)),
      writable_(writable),
      direct_(direct) {
  Limits& limits = mutable_limits();
  limits.remote = true;
  limits.max_transfer = RequestRoom::kMostTransferBytes;
  if (direct_) limits.request_alignment = limits.memory_alignment = 4096;
}

GlusterNode::~GlusterNode() = default;

void GlusterNode::on_done(glfs_fd_t*, ssize_t result, struct glfs_stat*, struct glfs_stat*,
                          void* data) {
  Watch::answer(data, result, errno);
}

void GlusterNode::check_usable() {
  const std::lock_guard lock(state_);
  if (!unusable_.empty()) throw Error(ErrorKind::kIo, unusable_);
}

void GlusterNode::give_up(const std::string& why) {
  const std::lock_guard lock(state_);
  if (unusable_.empty())
    unusable_ = "GlusterFS: " + why + "; what is stored is not known, open the disk again";
}

void GlusterNode::fail(int error, const char* what) const {
  if (error == ECANCELED) throw Error(ErrorKind::kCancelled, "cancelled");
  if (error == EDQUOT) error = ENOSPC;
  Error result = Error::system(error);
  if (error == ETIMEDOUT)
    result.hint("GlusterFS: the volume " + location_.volume + " does not answer");
  else if (what != nullptr)
    result.hint(std::string("GlusterFS: ") + what);
  throw result;
}

Task<ssize_t> GlusterNode::call(std::function<ssize_t()> work, const char* what) {
  const auto errand = std::make_shared<Errand>();
  co_await volumes_.watch().call(errand, std::move(work), settings_.timeout, context().cancel);
  if (errand->result() < 0) fail(errand->error(), what);
  co_return errand->result();
}

Task<void> GlusterNode::send(ErrandPtr errand, Watch::Start start) {
  co_await volumes_.watch().send(std::move(errand), std::move(start), settings_.timeout,
                                 context().cancel);
}

Task<void> GlusterNode::connect() {
  co_await open_file(false);
  co_await learn();
}

Task<void> GlusterNode::create(uint64_t length, Preallocation preallocation) {
  co_await open_file(true);
  co_await do_resize({.length = length, .preallocation = preallocation});
}

Task<void> GlusterNode::remove() {
  glfs_t* volume = co_await volumes_.connect(context(), location_, settings_);
  const std::function<ssize_t()> unlink = [volume, &library = library_,
                                           path = location_.path]() -> ssize_t {
    return library.glfs_unlink(volume, path.c_str());
  };
  const auto errand = std::make_shared<Errand>();
  co_await volumes_.watch().call(errand, unlink, settings_.timeout, nullptr);
  if (errand->result() < 0)
    throw Error::system(errand->error(), "Could not remove '" + filename() + "'");
}

Task<void> GlusterNode::open_file(bool create) {
  glfs_t* volume = co_await volumes_.connect(context(), location_, settings_);
  auto opened = std::make_shared<glfs_fd_t*>(nullptr);
  const int mode = (writable_ ? O_RDWR : O_RDONLY) | (direct_ ? O_DIRECT : 0);
  const auto open = [opened, volume, create, mode, &library = library_,
                     path = location_.path]() -> ssize_t {
    *opened = create ? library.glfs_creat(volume, path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600)
                     : library.glfs_open(volume, path.c_str(), mode);
    return *opened == nullptr ? -1 : 0;
  };
  auto errand = std::make_shared<Errand>();
  co_await volumes_.watch().call(errand, open, settings_.timeout, context().cancel);
  if (errand->result() < 0) {
    if (errand->error() == ECANCELED) fail(ECANCELED, nullptr);
    throw Error::system(errand->error(),
                        (create ? "Could not create '" : "Could not open '") + filename() + "'");
  }
  file_ = *opened;
}

Task<void> GlusterNode::learn() {
  auto status = std::make_shared<struct stat>();
  const std::function<ssize_t()> ask = [status, file = file_, &library = library_]() -> ssize_t {
    return library.glfs_fstat(file, status.get());
  };
  co_await call(ask, "the size cannot be found");
  if (!S_ISREG(status->st_mode))
    throw Error(ErrorKind::kInvalid, "'" + filename() + "' is no regular file");
  if (status->st_size < 0)
    throw Error(ErrorKind::kTooLarge,
                "the server returned a size of " + std::to_string(status->st_size) + " bytes");
  const auto length = static_cast<uint64_t>(status->st_size);
  set_length(length);
  // Where holes can be found there is no data past the end.
  auto errand = std::make_shared<Errand>();
  const auto look = [file = file_, length, &library = library_]() -> ssize_t {
    return library.glfs_lseek(file, static_cast<off_t>(length), SEEK_DATA);
  };
  co_await volumes_.watch().call(errand, look, settings_.timeout, context().cancel);
  can_seek_ = errand->result() < 0 && errand->error() == ENXIO;
}

Task<void> GlusterNode::do_read(uint64_t offset, MutableByteSpan out) {
  check_usable();
  size_t done = 0;
  while (done < out.size()) {
    const size_t left = out.size() - done;
    co_await room_.acquire(left);
    const RequestRoom::Place place(room_, left);
    const auto errand = std::make_shared<Errand>(left);
    const auto at = static_cast<off_t>(offset + done);
    const Watch::Start start = [this, &errand, at](void* data) {
      return library_.glfs_preadv_async(file_, &errand->vector, 1, at, 0, &on_done, data);
    };
    co_await send(errand, start);
    if (errand->result() < 0) fail(errand->error(), nullptr);
    const auto got = static_cast<size_t>(errand->result());
    if (got > errand->vector.iov_len)
      throw Error(ErrorKind::kIo, "GlusterFS: the volume answered with more than was asked for");
    if (got == 0) break;
    std::memcpy(out.data() + done, errand->vector.iov_base, got);
    done += got;
  }
  // Zeroes are past the end of the file alone.
  if (done < out.size() && offset + done < length())
    throw Error(ErrorKind::kIo, "GlusterFS: the file ends at byte " +
                                    std::to_string(offset + done) + ", before its size");
  std::memset(out.data() + done, 0, out.size() - done);
}

Task<void> GlusterNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  RwLock::Guard held;
  if (offset + in.size() > length()) held = co_await end_lock_.shared();
  for (size_t done = 0; done < in.size();) {
    check_usable();
    const size_t left = in.size() - done;
    co_await room_.acquire(left);
    const RequestRoom::Place place(room_, left);
    const auto errand = std::make_shared<Errand>(left);
    std::memcpy(errand->vector.iov_base, in.data() + done, left);
    const auto at = static_cast<off_t>(offset + done);
    const Watch::Start start = [this, &errand, at](void* data) {
      return library_.glfs_pwritev_async(file_, &errand->vector, 1, at, 0, &on_done, data);
    };
    co_await send(errand, start);
    if (errand->result() < 0) {
      if (errand->error() == ETIMEDOUT) give_up("a write had no answer");
      fail(errand->error(), nullptr);
    }
    const auto written = static_cast<size_t>(errand->result());
    if (written == 0 || written > errand->vector.iov_len)
      throw Error(ErrorKind::kIo, "GlusterFS: the volume says that it wrote " +
                                      std::to_string(written) + " bytes of " +
                                      std::to_string(errand->vector.iov_len));
    done += written;
  }
  forget_extents();
  raise_length(offset + in.size());
}

Task<void> GlusterNode::over_range(uint64_t offset, uint64_t length, bool zeroes) {
  const uint64_t most = zeroes ? kZeroedAtATime : kDiscardedAtATime;
  while (length != 0) {
    check_usable();
    const uint64_t part = std::min(length, most);
    const auto at = static_cast<off_t>(offset);
    const Watch::Start start = [this, at, part, zeroes](void* data) {
      return zeroes
                 ? library_.glfs_zerofill_async(file_, at, static_cast<off_t>(part), &on_done, data)
                 : library_.glfs_discard_async(file_, at, part, &on_done, data);
    };
    const auto errand = std::make_shared<Errand>();
    co_await send(errand, start);
    if (errand->result() < 0) {
      if (errand->error() == ETIMEDOUT) give_up("a write had no answer");
      if (not_there(errand->error())) throw Error::system(ENOTSUP);
      fail(errand->error(), nullptr);
    }
    offset += part;
    length -= part;
  }
  forget_extents();
}

Task<void> GlusterNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags) {
  if (!can_zero_) throw Error::system(ENOTSUP);
  RwLock::Guard held;
  if (offset + length > this->length()) held = co_await end_lock_.shared();
  try {
    co_await over_range(offset, length, true);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kUnsupported) can_zero_ = false;
    throw;
  }
  raise_length(offset + length);
}

Task<void> GlusterNode::do_discard(uint64_t offset, uint64_t length) {
  const uint64_t end = std::min(offset + length, this->length());
  if (!can_discard_ || offset >= end) co_return;
  try {
    co_await over_range(offset, end - offset, false);
  } catch (const Error& error) {
    // A hint: what cannot be given up stays.
    if (error.kind() != ErrorKind::kUnsupported) throw;
    can_discard_ = false;
  }
}

Task<void> GlusterNode::do_flush() {
  if (!writable_) co_return;
  check_usable();
  const auto errand = std::make_shared<Errand>();
  const Watch::Start start = [this](void* data) {
    return library_.glfs_fsync_async(file_, &on_done, data);
  };
  co_await send(errand, start);
  if (errand->result() >= 0) co_return;
  // Older daemons drop what they could not store.
  give_up("a flush failed");
  fail(errand->error(), nullptr);
}

void GlusterNode::forget_extents() {
  const std::lock_guard lock(state_);
  extent_begin_ = extent_end_ = 0;
}

Task<int64_t> GlusterNode::seek(uint64_t offset, int whence) {
  const auto errand = std::make_shared<Errand>();
  const auto look = [file = file_, offset, whence, &library = library_]() -> ssize_t {
    return library.glfs_lseek(file, static_cast<off_t>(offset), whence);
  };
  co_await volumes_.watch().call(errand, look, settings_.timeout, context().cancel);
  co_return errand->result() < 0 ? -int64_t{errand->error()} : int64_t{errand->result()};
}

Task<Extent> GlusterNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await Node::do_extent(offset, max);
  if (!can_seek_) co_return extent;
  uint64_t begin = 0, end = 0;
  bool data = true;
  {
    const std::lock_guard lock(state_);
    begin = extent_begin_;
    end = extent_end_;
    data = extent_data_;
  }
  if (offset < begin || offset >= end) {
    const int64_t found = co_await seek(offset, SEEK_DATA);
    const auto at = static_cast<int64_t>(offset);
    begin = offset;
    end = offset + max;
    // Some servers go back: then all is data.
    data = found != -ENXIO && found <= at;
    if (found > at) end = static_cast<uint64_t>(found);
    if (found == -ENXIO) end = std::max(end, length());
    if (found == at) {
      const int64_t hole = co_await seek(offset, SEEK_HOLE);
      if (hole > at) end = static_cast<uint64_t>(hole);
    }
    const std::lock_guard lock(state_);
    extent_begin_ = begin;
    extent_end_ = end;
    extent_data_ = data;
  }
  extent.length = std::min(max, end - offset);
  extent.data = data;
  extent.zero = !data;
  co_return extent;
}

Task<void> GlusterNode::do_resize(ResizeRequest request) {
  const RwLock::Guard moving = co_await end_lock_.exclusive();
  const uint64_t before = length();
  // What only needs room must not cut off what others have written meanwhile.
  if (request.length <= before && !request.exact) co_return;
  check_usable();
  const Preallocation mode = request.preallocation;
  if (mode == Preallocation::kMetadata)
    throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode: metadata");
  if (mode != Preallocation::kOff && request.length < before)
    throw Error(ErrorKind::kInvalid, "Preallocation can only be used for growing images");
  const std::function<ssize_t()> change = [file = file_, &library = library_, mode, before,
                                           length = request.length]() -> ssize_t {
    if (mode == Preallocation::kFalloc && length > before)
      return library.glfs_fallocate(file, 0, static_cast<off_t>(before), length - before);
    return library.glfs_ftruncate(file, static_cast<off_t>(length), nullptr, nullptr);
  };
  co_await call(change, "the size cannot be changed");
  forget_extents();
  if (mode == Preallocation::kFull && request.length > before)
    co_await over_range(before, request.length - before, true);
  set_length(request.length);
}

Task<std::optional<uint64_t>> GlusterNode::allocated_bytes() {
  const auto status = std::make_shared<struct stat>();
  const std::function<ssize_t()> ask = [status, file = file_, &library = library_]() -> ssize_t {
    return library.glfs_fstat(file, status.get());
  };
  co_await call(ask, "the size cannot be found");
  co_return static_cast<uint64_t>(status->st_blocks) * 512;
}

Task<void> GlusterNode::do_close() {
  if (file_ == nullptr) co_return;
  glfs_fd_t* file = std::exchange(file_, nullptr);
  const std::function<ssize_t()> close = [file, &library = library_]() -> ssize_t {
    return library.glfs_close(file);
  };
  const auto errand = std::make_shared<Errand>();
  co_await volumes_.watch().call(errand, close, settings_.timeout, nullptr);
  // What the library had taken, and could not store.
  if (errand->result() < 0 && writable_) fail(errand->error(), "closing the file");
}

}  // namespace cairn::gluster
