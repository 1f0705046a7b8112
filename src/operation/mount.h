#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "block/partitions.h"
#include "export/fuse/mount.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct MountOptions {
  FuseOptions fuse;    // without mount point and files
  std::string target;  // the file or directory on which the image appears; made if it is missing
  bool partitions = false;  // a directory with a file for each partition
  bool snapshot = false;    // writes go to a temporary overlay
};

// What was mounted.
struct Mounted {
  const FuseOptions& fuse;
  const PartitionTable& table;  // empty without partitions
  uint64_t bytes = 0;           // of the disk
};

// Opens the image of REQUEST, shows it as files, calls READY, and serves it until it is unmounted
// or CALLER cancels. Throws what went wrong.
Task<void> mount(const Caller& caller, OpenRequest request, MountOptions options,
                 std::function<void(const Mounted&)> ready);

// Unmounts what mount() shows on the path NAME, and waits for the end of the program that serves
// it, PATIENCE at most. Gives the full path of the mount point. Throws kLocked when it is still in
// use in the end, kInvalid when nothing of this kind is mounted there.
std::string unmount(const Caller& caller, const std::string& name, std::chrono::seconds patience);

}  // namespace cairn::operation
