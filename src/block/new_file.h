#pragma once

#include <exception>
#include <string>

#include "block/open.h"

namespace cairn {

// Throws kExists when PATH, a file that an image needs besides its own, is a regular file with
// content: no two files can take the place of old ones at the same moment, so none is replaced.
void refuse_existing_part(const std::string& path);

// A file next to the image that a format makes while it creates the image, such as a data file. An
// old one is emptied, under QEMU's locks; a new one goes again when the creation fails.
class NewFile {
 public:
  // PATH is a plain name, relative to the working directory. Throws "Could not create 'PATH': …",
  // and kExists when it has content and OVERWRITE is false.
  Task<void> make(Context& context, std::string path, bool overwrite);
  // The file, empty and writable; null before make().
  const NodePtr& node() const { return node_; }
  // Closes the file and throws ERROR, or else the error of closing. Must be awaited.
  Task<void> finish(std::exception_ptr error);

 private:
  std::string path_;
  bool existed_ = false;
  NodePtr node_;
};

}  // namespace cairn
