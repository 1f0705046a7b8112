#pragma once

#include <string>

#include "base/own_fd.h"

namespace cairn::vvfat {

// A folder of the host, and the only way to what lies in it: the kernel resolves every path beneath
// it (openat2, RESOLVE_BENEATH), whatever links there are and whoever moves them meanwhile.
class HostFolder {
 public:
  // Throws with QEMU's words when PATH is no folder that may be read.
  explicit HostFolder(std::string path);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  // RELATIVE as people know it.
  std::string full_path(const std::string& relative) const;

  enum class Links : bool { kRefuse, kFollow };
  // As open(2) of RELATIVE (empty: the folder itself). Without a descriptor errno tells why: EXDEV
  // when a link leads outside, ELOOP for a link that is refused.
  OwnFd open(const std::string& relative, int flags, Links links) const;

 private:
  std::string path_;
  OwnFd fd_;
};

}  // namespace cairn::vvfat
