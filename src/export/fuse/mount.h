#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/cancel.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

// Extended attribute of all that a mount shows: the number of the process that serves it.
inline constexpr const char* kProcessAttribute = "user.cairn.process";

// A part of the disk that a mount shows as a file of its own.
struct FuseFile {
  std::string name;
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;
};

struct FuseOptions {
  std::string mount_point;  // an existing file, or a directory when there are FILES
  std::string source;       // the image's name, for the table of mounts
  // Empty: the mount point itself becomes the whole disk.
  std::vector<FuseFile> files;
  bool writable = false;
  bool growable = false;     // writing past the end and truncating change the disk's size
  bool truncatable = false;  // truncating and allocating do
  bool allow_other = false;
  bool owner_only = false;  // until chmod or chown give others rights, which needs ALLOW_OTHER
  bool cut_off = false;     // who has it open when it is unmounted gets ENOTCONN from then on
};

// Shows an image as one file, or its parts as several, through the kernel's FUSE. Requests are
// served on all workers; reads and writes go through the Node without a copy of ours.
//
// The order that keeps data: a write is answered when the Node has taken it, fsync and the closing
// of a file that was written flush the Node, and what they say is what the caller gets.
class FuseMount {
 public:
  // NODE must be open for writing when OPTIONS are; it is not closed here.
  FuseMount(Context& context, NodePtr node, FuseOptions options);
  ~FuseMount();
  FuseMount(const FuseMount&) = delete;

  // Mounts. Blocks. Throws kUnsupported without libfuse, else what the system said.
  void mount();
  // Serves until the file system is unmounted and every request is answered. When CANCEL is
  // requested it takes the mount out of the tree and continues until its last user has closed it;
  // STILL_USED is called when there is one. Throws when unmounting fails. On worker 0.
  Task<void> serve(CancelSource& cancel, std::function<void()> still_used);

  class Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn
