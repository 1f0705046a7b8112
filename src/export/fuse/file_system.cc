#include "export/fuse/file_system.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/arith.h"
#include "block/capabilities/storage_use.h"

namespace cairn::fuse {
namespace {

constexpr uint64_t kSector = 512;
constexpr double kForever = 86400;

timespec now() {
  timespec time = {};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

// The number that stands for what is being thrown.
int error_number() {
  try {
    throw;
  } catch (const Error& error) {
    return error.error_number() != 0 ? error.error_number() : EIO;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  } catch (...) {
    return EIO;
  }
}

[[noreturn]] void refuse(int error) { throw Error::system(error); }

}  // namespace

FileSystem::FileSystem(const Library& library, NodePtr node, FuseOptions options)
    : library_(library),
      node_(std::move(node)),
      options_(std::move(options)),
      modified_(now()),
      owner_(::getuid()),
      group_(::getgid()) {
  mode_t mode = options_.writable ? 0600 : 0400;
  if (options_.allow_other && !options_.owner_only) mode |= 044;
  mode_ = mode;
  if (options_.files.empty()) {
    views_.push_back({.name = {}, .offset = 0, .length = 0, .whole = true});
  } else {
    views_.push_back({.name = "disk", .offset = 0, .length = 0, .whole = true});
    for (const FuseFile& file : options_.files)
      views_.push_back({.name = file.name, .offset = file.offset, .length = file.length});
  }
}

Task<void> FileSystem::prepare() { co_await count_blocks(); }

const FileSystem::View* FileSystem::view(fuse_ino_t inode) const {
  const fuse_ino_t first = inode_of(0);
  if (inode < first || inode - first >= views_.size()) return nullptr;
  return &views_[inode - first];
}

double FileSystem::attribute_seconds() const { return options_.writable ? 1 : kForever; }

void FileSystem::touched() {
  std::lock_guard lock(times_mutex_);
  modified_ = now();
}

struct stat FileSystem::attributes(fuse_ino_t inode) const {
  struct stat result = {};
  result.st_ino = inode;
  result.st_uid = owner_;
  result.st_gid = group_;
  {
    std::lock_guard lock(times_mutex_);
    result.st_mtim = result.st_atim = result.st_ctim = modified_;
  }
  const View* file = view(inode);
  if (file == nullptr) {
    result.st_mode = S_IFDIR | (options_.allow_other ? 0555 : 0500);
    result.st_nlink = 2;
    return result;
  }
  const uint64_t length = length_of(*file);
  result.st_mode = S_IFREG | mode_;
  result.st_nlink = 1;
  result.st_size = static_cast<off_t>(length);
  result.st_blksize = 65536;
  result.st_blocks = static_cast<blkcnt_t>(div_ceil(std::min(allocated_.load(), length), kSector));
  return result;
}

Task<void> FileSystem::count_blocks() {
  const std::optional<uint64_t> bytes = co_await allocated_bytes_of(*node_);
  allocated_ = bytes.value_or(node_->length());
}

// --- data ---

Task<void> FileSystem::read(Channel& channel, fuse_req_t request, const View& view, uint64_t offset,
                            uint64_t size) {
  const uint64_t length = length_of(view);
  size = offset < length ? std::min({size, length - offset, uint64_t{kMaxTransfer}}) : 0;
  if (size == 0) {
    library_.reply_buf(request, nullptr, 0);
    co_return;
  }
  AlignedBuffer buffer = channel.take_buffer();
  int error = 0;
  try {
    co_await node_->read(view.offset + offset, buffer.span().first(size));
  } catch (...) {
    error = error_number();
  }
  if (error == 0)
    library_.reply_buf(request, reinterpret_cast<const char*>(buffer.data()), size);
  else
    library_.reply_err(request, error);
  channel.give_back(std::move(buffer));
}

Task<void> FileSystem::write(Channel& channel, fuse_req_t request, const View& view,
                             uint64_t offset, AlignedBuffer memory, const char* data, size_t size) {
  int error = 0;
  try {
    const auto end = checked_add(offset, size);
    if (!end || *end > static_cast<uint64_t>(INT64_MAX)) refuse(EFBIG);
    if (view.whole && options_.growable && *end > node_->length()) co_await grow_to(*end);
    const uint64_t length = length_of(view);
    if (offset >= length && size != 0) refuse(ENOSPC);
    size = std::min<uint64_t>(size, length - std::min(offset, length));
    dirty_ = true;
    co_await node_->write(view.offset + offset, bytes_of({data, size}));
    touched();
  } catch (...) {
    error = error_number();
  }
  channel.give_back(std::move(memory));
  if (error == 0)
    library_.reply_write(request, size);
  else
    library_.reply_err(request, error);
}

Task<void> FileSystem::flush_node() {
  if (!options_.writable) co_return;
  // Writes that arrive meanwhile make it dirty again.
  if (!dirty_.exchange(false)) co_return;
  try {
    co_await node_->flush();
  } catch (...) {
    dirty_ = true;
    throw;
  }
}

Task<void> FileSystem::flush(fuse_req_t request) {
  int error = 0;
  try {
    co_await flush_node();
  } catch (...) {
    error = error_number();
  }
  library_.reply_err(request, error);
}

// --- size ---

Task<void> FileSystem::grow_to(uint64_t length) {
  auto guard = co_await resizing_.lock();
  if (length <= node_->length()) co_return;
  co_await resize_to(length);
}

Task<void> FileSystem::resize_to(uint64_t length) {
  dirty_ = true;
  ResizeRequest request;
  request.length = length;
  request.round_up = true;
  co_await node_->resize(request);
}

Task<void> FileSystem::truncate(const View& view, uint64_t length) {
  if (length == length_of(view)) co_return;
  if (!view.whole || !(options_.growable || options_.truncatable)) refuse(EPERM);
  if (length > static_cast<uint64_t>(INT64_MAX) - kSector) refuse(EFBIG);
  auto guard = co_await resizing_.lock();
  co_await resize_to(length);
  touched();
}

// --- holes ---

Task<void> FileSystem::allocate(fuse_req_t request, const View& view, int mode, uint64_t offset,
                                uint64_t length) {
  int error = 0;
  try {
    co_await change_range(view, mode, offset, length);
    touched();
  } catch (...) {
    error = error_number();
  }
  library_.reply_err(request, error);
}

Task<void> FileSystem::change_range(const View& view, int mode, uint64_t offset, uint64_t length) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const bool punch = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  const bool zero = (mode & FALLOC_FL_ZERO_RANGE) != 0;
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 ||
      (punch && zero))
    refuse(EOPNOTSUPP);
  const auto end = checked_add(offset, length);
  if (!end || *end > static_cast<uint64_t>(INT64_MAX)) refuse(EFBIG);
  if (*end > length_of(view) && !keep_size && !punch) {
    if (!view.whole || !(options_.growable || options_.truncatable)) refuse(ENOSPC);
    co_await grow_to(*end);
  }
  const uint64_t limit = length_of(view);
  if (offset >= limit) co_return;
  length = std::min(length, limit - offset);
  dirty_ = true;
  WriteFlags flags;
  flags.may_unmap = punch;
  if (punch || zero)
    co_await node_->write_zeroes(view.offset + offset, length, flags);
  else
    co_await allocate_holes(view.offset + offset, length);
}

// Space for what has none: holes become zeroes that are stored, where the format knows such.
Task<void> FileSystem::allocate_holes(uint64_t offset, uint64_t length) {
  while (length != 0) {
    const Extent extent = co_await node_->extent_at(offset, length);
    const uint64_t part = std::min(extent.length, length);
    if (part == 0) refuse(EIO);
    if (!extent.data && extent.zero) co_await node_->write_zeroes(offset, part, WriteFlags{});
    offset += part;
    length -= part;
  }
}

Task<void> FileSystem::seek(fuse_req_t request, const View& view, uint64_t offset, bool data) {
  int error = 0;
  uint64_t at = offset;
  try {
    const uint64_t length = length_of(view);
    if (offset >= length) refuse(ENXIO);
    while (at < length) {
      const Extent extent = co_await node_->extent_at(view.offset + at, length - at);
      if (extent.length == 0) refuse(EIO);
      if (extent.zero != data) break;
      at += std::min(extent.length, length - at);
    }
    // The end of the file is a hole, but no data.
    if (data && at >= length) refuse(ENXIO);
  } catch (...) {
    error = error_number();
  }
  if (error == 0)
    library_.reply_lseek(request, static_cast<off_t>(at));
  else
    library_.reply_err(request, error);
}

// --- attributes ---

void FileSystem::reply_attributes(fuse_req_t request, fuse_ino_t inode, int error) {
  const struct stat result = attributes(inode);
  if (error == 0)
    library_.reply_attr(request, &result, attribute_seconds());
  else
    library_.reply_err(request, error);
}

Task<void> FileSystem::get_attributes(fuse_req_t request, fuse_ino_t inode) {
  int error = 0;
  try {
    if (options_.writable) co_await count_blocks();
  } catch (...) {
    error = error_number();
  }
  reply_attributes(request, inode, error);
}

Task<void> FileSystem::set_attributes(fuse_req_t request, fuse_ino_t inode, struct stat wanted,
                                      int which) {
  int error = 0;
  try {
    const View* file = view(inode);
    if (file == nullptr) refuse(EPERM);
    const bool others = options_.allow_other || !options_.owner_only;
    const bool mode = (which & FUSE_SET_ATTR_MODE) != 0;
    if (mode && !others && (wanted.st_mode & 077) != 0) refuse(EPERM);
    if (mode && !options_.writable && (wanted.st_mode & 0222) != 0) refuse(EROFS);
    if ((which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0 && !others) refuse(EOPNOTSUPP);
    if ((which & FUSE_SET_ATTR_SIZE) != 0)
      co_await truncate(*file, static_cast<uint64_t>(wanted.st_size));
    if (mode) mode_ = wanted.st_mode & 07777;
    if ((which & FUSE_SET_ATTR_UID) != 0) owner_ = wanted.st_uid;
    if ((which & FUSE_SET_ATTR_GID) != 0) group_ = wanted.st_gid;
    if ((which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0) {
      std::lock_guard lock(times_mutex_);
      modified_ = (which & FUSE_SET_ATTR_MTIME_NOW) != 0 ? now() : wanted.st_mtim;
    }
    // The kernel keeps what it is answered.
    if (options_.writable) co_await count_blocks();
  } catch (...) {
    error = error_number();
  }
  reply_attributes(request, inode, error);
}

}  // namespace cairn::fuse
