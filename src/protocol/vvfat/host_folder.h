#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/own_fd.h"
#include "platform/folder.h"

namespace cairn::vvfat {

// A directory of the host, and the only way to what is in it: every path is resolved beneath it,
// whatever links there are and whatever moves them meanwhile.
class HostFolder {
 public:
  // Throws with QEMU's words when PATH is no directory that may be read.
  explicit HostFolder(std::string path);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  // RELATIVE as it is shown.
  std::string full_path(const std::string& relative) const;

  using Links = platform::Links;
  // As open(2) of RELATIVE (empty: the directory itself). Without a descriptor errno says why:
  // EXDEV when a link leads outside, ELOOP for a link that is refused.
  OwnFd open(const std::string& relative, int flags, Links links, unsigned mode = 0) const;
  // What the directory RELATIVE holds. Throws with QEMU's words, also for more than MOST.
  std::vector<std::string> names_in(const std::string& relative, Links links, size_t most) const;

  // Changes of what is in the directory. None of them follows a link or overwrites anything; all
  // throw what the system says, naming RELATIVE.
  //
  // No second program may make such changes at the same time: throws kLocked.
  void lock() const;
  void make_folder(const std::string& relative, unsigned mode) const;
  // Nothing may be called TO.
  void move(const std::string& from, const std::string& to) const;
  // As lstat(2); nothing when nothing is there.
  std::optional<platform::FileStatus> look_at(const std::string& relative) const;
  // A file, a link, or a directory with all that it holds; fine when it is not there.
  void remove(const std::string& relative) const;
  void set_written(const std::string& relative, int64_t seconds) const;
  // FD gets the owner and the permissions of RELATIVE, when that is there.
  void copy_rights(const std::string& relative, int fd) const;
  // All that was changed is on stable storage.
  void flush() const;

 private:
  // The directory in which RELATIVE is, and its name there.
  std::pair<OwnFd, std::string> place_of(const std::string& relative) const;
  std::string path_;
  OwnFd fd_;
};

}  // namespace cairn::vvfat
