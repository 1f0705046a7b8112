#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/arith.h"
#include "export/fuse/file_system.h"
#include "export/fuse/mount.h"

namespace cairn::fuse {

// What libfuse calls, on the worker that read the request. Whatever may wait becomes a coroutine
// of the channel; the rest is answered at once.
struct Requests {
  static FileSystem& self() { return Channel::current()->files(); }
  static const Library& library() { return self().library_; }
  static void start(Task<void> work) { Channel::current()->start(std::move(work)); }

  // The file of INODE; answers the request when there is none.
  static const FileSystem::View* file_of(fuse_req_t request, fuse_ino_t inode) {
    const FileSystem::View* view = self().view(inode);
    if (view == nullptr) library().reply_err(request, EISDIR);
    return view;
  }

  static void init(void*, fuse_conn_info* connection) {
    connection->max_write = kMaxTransfer;
    connection->max_background = 64;
    connection->congestion_threshold = 48;
    // The content changes through this mount alone: nothing is to be dropped when times change.
    connection->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);
    connection->want |= connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO);
  }

  static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    FileSystem& fs = self();
    if (fs.is_folder() && parent == FUSE_ROOT_ID) {
      for (size_t i = 0; i < fs.views_.size(); ++i) {
        if (fs.views_[i].name != name) continue;
        fuse_entry_param entry = {};
        entry.ino = fs.inode_of(i);
        entry.attr = fs.attributes(entry.ino);
        entry.attr_timeout = fs.attribute_seconds();
        entry.entry_timeout = 86400;
        library().reply_entry(request, &entry);
        return;
      }
    }
    library().reply_err(request, ENOENT);
  }

  static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    FileSystem& fs = self();
    if (fs.view(inode) == nullptr && !(fs.is_folder() && inode == FUSE_ROOT_ID))
      library().reply_err(request, ENOENT);
    else
      start(fs.get_attributes(request, inode));
  }

  static void setattr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int which,
                      fuse_file_info*) {
    start(self().set_attributes(request, inode, *wanted, which));
  }

  static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (file_of(request, inode) == nullptr) return;
    const FuseOptions& options = self().options();
    if ((info->flags & O_ACCMODE) != O_RDONLY && !options.writable) {
      library().reply_err(request, EROFS);
      return;
    }
    // Two files that show the same bytes must not be cached apart from each other.
    if (options.writable && self().is_folder())
      info->direct_io = 1;
    else
      info->keep_cache = 1;
    info->noflush = (info->flags & O_ACCMODE) == O_RDONLY;
    library().reply_open(request, info);
  }

  static void read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                   fuse_file_info*) {
    if (const auto* view = file_of(request, inode))
      start(self().read(*Channel::current(), request, *view, static_cast<uint64_t>(offset), size));
  }

  static void write(fuse_req_t request, fuse_ino_t inode, const char* data, size_t size,
                    off_t offset, fuse_file_info*) {
    const auto* view = file_of(request, inode);
    if (view == nullptr) return;
    // DATA is in the memory of the request, which goes along.
    Channel& channel = *Channel::current();
    start(self().write(channel, request, *view, static_cast<uint64_t>(offset),
                       channel.take_request(), data, size));
  }

  static void flush(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
    start(self().flush(request));
  }
  static void fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
    start(self().flush(request));
  }
  static void release(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
    library().reply_err(request, 0);
  }

  static void fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
                        fuse_file_info*) {
    if (const auto* view = file_of(request, inode))
      start(self().allocate(request, *view, mode, static_cast<uint64_t>(offset),
                            static_cast<uint64_t>(length)));
  }

  static void lseek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence,
                    fuse_file_info*) {
    const auto* view = file_of(request, inode);
    if (view == nullptr) return;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
      library().reply_err(request, EINVAL);
    else
      start(self().seek(request, *view, static_cast<uint64_t>(offset), whence == SEEK_DATA));
  }

  static void readdir(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
    FileSystem& fs = self();
    std::string listing;
    for (size_t i = static_cast<size_t>(offset); i < fs.views_.size() + 2; ++i) {
      struct stat attributes = {};
      attributes.st_ino = i < 2 ? FUSE_ROOT_ID : fs.inode_of(i - 2);
      attributes.st_mode = i < 2 ? S_IFDIR : S_IFREG;
      const std::string name = i == 0 ? "." : i == 1 ? ".." : fs.views_[i - 2].name;
      char entry[512];
      const size_t length = library().add_direntry(request, entry, sizeof entry, name.c_str(),
                                                   &attributes, static_cast<off_t>(i + 1));
      if (length > sizeof entry || listing.size() + length > size) break;
      listing.append(entry, length);
    }
    library().reply_buf(request, listing.data(), listing.size());
  }

  // The process that serves: who unmounts waits for its end, when the image is closed.
  static void getxattr(fuse_req_t request, fuse_ino_t, const char* name, size_t size) {
    const std::string process = std::to_string(::getpid());
    if (std::string_view(name) != kProcessAttribute)
      library().reply_err(request, ENODATA);
    else if (size < process.size())
      library().reply_err(request, ERANGE);
    else
      library().reply_buf(request, process.data(), process.size());
  }

  static void statfs(fuse_req_t request, fuse_ino_t) {
    struct statvfs result = {};
    result.f_bsize = result.f_frsize = 512;
    result.f_blocks = self().node_->length() / 512;
    result.f_files = self().views_.size();
    result.f_namemax = 255;
    library().reply_statfs(request, &result);
  }
};

const fuse_lowlevel_ops& FileSystem::operations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops table = {};
    table.init = Requests::init;
    table.lookup = Requests::lookup;
    table.getattr = Requests::getattr;
    table.setattr = Requests::setattr;
    table.open = Requests::open;
    table.read = Requests::read;
    table.write = Requests::write;
    table.flush = Requests::flush;
    table.fsync = Requests::fsync;
    table.release = Requests::release;
    table.fallocate = Requests::fallocate;
    table.lseek = Requests::lseek;
    table.readdir = Requests::readdir;
    table.getxattr = Requests::getxattr;
    table.statfs = Requests::statfs;
    return table;
  }();
  return operations;
}

}  // namespace cairn::fuse
