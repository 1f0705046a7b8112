#pragma once

#include <string>

#include "platform/file.h"

namespace cairn {

// A new file next to an old one that takes its place all at once: at every moment the name stands
// for the whole old or the whole new file. The new one goes when it did not take the place, and
// where the file system has unnamed files also when the program is killed. All calls block.
class FileReplacement {
 public:
  // Follows symbolic links. Throws kInvalid when PATH is no regular file or has several names
  // (hard links), which would come apart.
  explicit FileReplacement(const std::string& path);
  ~FileReplacement();
  FileReplacement(const FileReplacement&) = delete;
  FileReplacement& operator=(const FileReplacement&) = delete;

  // A path by which this process can open the file that is written: of a descriptor, or
  // ".NAME.cairn-XXXXXX" in the same directory. Readable by its owner only.
  const std::string& new_path() const { return new_path_; }
  // Throws kNoSpace when the file system has fewer than BYTES left for this user.
  void need_space(uint64_t bytes) const;
  // Gives the new file the owner, mode and extended attributes of the old one where the system has
  // such, makes sure that it
  // is on stable storage, and gives it the name. Throws when any of it is not possible, or when
  // the name stands for another file by now; the old file is then what it was.
  void commit();

 private:
  // PATH without links, and what is there. Throws as the constructor.
  static std::string check_replaceable(const std::string& path, platform::FileStatus* old);
  // The unnamed file gets a name next to the old one.
  void name_new_file();

  std::string path_;  // without links
  std::string folder_;
  std::string new_path_;
  std::string pattern_;  // of names next to the old one
  int unnamed_ = -1;     // the new file while it has no name
  platform::FileStatus old_;
  bool committed_ = false;
};

}  // namespace cairn
