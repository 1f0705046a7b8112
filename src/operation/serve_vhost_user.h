#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "export/vhost_user/vhost_export.h"
#include "operation/caller.h"
#include "operation/served_image.h"

namespace cairn::operation {

// Disks for virtual machines: an image for each Unix socket.
struct VhostUserPlan {
  struct Disk {
    ImagePlan image;
    std::string socket;  // path
  };
  std::vector<Disk> disks;
  vhost_user::DiskOptions options;  // of every disk; the node is filled in
  std::string pid_file;
  std::function<void(std::string_view)> log;  // a line about a front end, from any worker
  // Called once virtual machines can connect, with the sizes of the disks in bytes.
  std::function<void(const std::vector<uint64_t>&)> ready;
};

// Listens, opens the images, serves until CALLER cancels, and closes everything. Throws the first
// error.
Task<void> serve_vhost_user(Caller& caller, VhostUserPlan plan);

}  // namespace cairn::operation
