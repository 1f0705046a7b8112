#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/vvfat/host_folder.h"
#include "protocol/vvfat/layout.h"

namespace cairn::vvfat {

// Files and directories in one tree.
inline constexpr size_t kMaxEntries = 4'000'000;

// Which file this is, and in which state: when it differs, somebody else has changed it.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;
  int64_t seconds = 0;  // of the last change of the content
  int64_t nanoseconds = 0;
  static FileStamp of(const platform::FileStatus& status);
  bool operator==(const FileStamp&) const = default;
};

// Clusters in a row on the disk.
struct ClusterPiece {
  uint32_t first = 0;
  uint32_t count = 0;
  bool operator==(const ClusterPiece&) const = default;
};

// Something in the directory: a file, a directory, or what is neither and is shown as an empty
// file.
struct Entry {
  enum class Kind : uint8_t { kFolder, kFile, kSpecial };

  std::string name;  // on the host; empty: the directory that is shown
  uint32_t parent = 0;
  Kind kind = Kind::kFile;
  bool linked = false;           // a symbolic link, or below one
  bool write_protected = false;  // no user has the permission to write
  bool conflicting = false;      // changed on the host and by the guest: is left as it is
  FileStamp stamp;
  DosTime created;
  DosTime written;
  std::u16string shown;  // the long name; empty: there is only the short one
  ShortName short_name{};
  // Directories: what they hold is together in Tree::entries.
  uint32_t first_child = 0;
  uint32_t children = 0;
  uint32_t slots = 0;  // of the directory
  // On the disk: in one piece, unless there are PIECES.
  uint32_t first_cluster = 0;
  uint32_t clusters = 0;
  std::vector<ClusterPiece> pieces;

  std::vector<ClusterPiece> chain() const {
    if (!pieces.empty() || clusters == 0) return pieces;
    return {{.first = first_cluster, .count = clusters}};
  }
  // What a guest sees as its name.
  std::u16string display_name() const;
  uint64_t bytes() const { return kind == Kind::kFile ? stamp.bytes : 0; }
};

// What the directory holds, breadth first: entry 0 is the directory itself. In each directory names
// are in the order of their bytes, so that the same directory gives the same disk.
struct Tree {
  std::vector<Entry> entries;
  // Relative to the directory.
  std::string path_of(uint32_t index) const;
};

// Where a commit keeps what is not in its place yet. Never shown.
constexpr std::string_view kStagingName = ".cairn-vvfat";

// Seconds since 1970 at MOMENT on the clock of the host.
int64_t host_time(DosTime moment);

struct ScanRequest {
  uint64_t max_file_bytes = 0;
  std::string_view label;  // stands among the short names of the root
  std::function<void(std::string_view)> warn;
};

// Reads a directory, and nothing outside of it: links that lead out, nowhere or in circles are left
// out, with a warning. Blocks. Throws with QEMU's words when a directory cannot be read or a file
// is too large.
Tree scan(const HostFolder& folder, const ScanRequest& request);

}  // namespace cairn::vvfat
