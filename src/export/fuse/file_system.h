#pragma once

#include <sys/stat.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "async/sync.h"
#include "export/fuse/channel.h"
#include "export/fuse/library.h"
#include "export/fuse/mount.h"

namespace cairn::fuse {

// The files of a mount and what their requests do. Inode 1 is the disk, or the directory whose
// files are numbered from 2 on. Any number of workers may call.
class FileSystem {
 public:
  FileSystem(const Library& library, NodePtr node, FuseOptions options);

  // The table for a session; handlers answer through the channel that hands the request out.
  static const fuse_lowlevel_ops& operations();

  const FuseOptions& options() const { return options_; }
  // Looks at the image before it is mounted.
  Task<void> prepare();

 private:
  friend struct Requests;
  // A file: the part of the disk that it shows. The whole disk is as long as the node is.
  struct View {
    std::string name;
    uint64_t offset = 0;
    uint64_t length = 0;
    bool whole = false;
  };

  bool is_folder() const { return !options_.files.empty(); }
  // Null when there is none.
  const View* view(fuse_ino_t inode) const;
  fuse_ino_t inode_of(size_t index) const { return index + (is_folder() ? 2 : 1); }
  uint64_t length_of(const View& view) const { return view.whole ? node_->length() : view.length; }
  struct stat attributes(fuse_ino_t inode) const;
  // The attributes of INODE, or ERROR when it is not 0.
  void reply_attributes(fuse_req_t request, fuse_ino_t inode, int error);
  double attribute_seconds() const;
  void touched();

  // What follows answers its request and never throws.
  Task<void> read(Channel& channel, fuse_req_t request, const View& view, uint64_t offset,
                  uint64_t size);
  Task<void> write(Channel& channel, fuse_req_t request, const View& view, uint64_t offset,
                   AlignedBuffer memory, const char* data, size_t size);
  Task<void> flush(fuse_req_t request);
  Task<void> allocate(fuse_req_t request, const View& view, int mode, uint64_t offset,
                      uint64_t length);
  Task<void> seek(fuse_req_t request, const View& view, uint64_t offset, bool data);
  Task<void> get_attributes(fuse_req_t request, fuse_ino_t inode);
  Task<void> set_attributes(fuse_req_t request, fuse_ino_t inode, struct stat wanted, int which);

  Task<void> grow_to(uint64_t length);
  Task<void> resize_to(uint64_t length);
  Task<void> truncate(const View& view, uint64_t length);
  Task<void> change_range(const View& view, int mode, uint64_t offset, uint64_t length);
  Task<void> allocate_holes(uint64_t offset, uint64_t length);
  Task<void> flush_node();
  Task<void> count_blocks();

  const Library& library_;
  NodePtr node_;
  FuseOptions options_;
  std::vector<View> views_;
  Mutex resizing_;
  std::atomic<bool> dirty_{false};
  std::atomic<uint64_t> allocated_{0};  // bytes, as last asked
  mutable std::mutex times_mutex_;
  timespec modified_{};
  std::atomic<mode_t> mode_{0};
  std::atomic<uid_t> owner_;
  std::atomic<gid_t> group_;
};

}  // namespace cairn::fuse
