#pragma once

#include <string>
#include <string_view>

#include "base/own_fd.h"
#include "protocol/file/file_node.h"

namespace cairn {

// The driver's name for what it opens.
std::string_view name_of(FileKind kind);

struct OpenMode {
  bool writable = false;
  bool direct = false;
  bool exclusive = false;  // of block devices: nothing else has claimed it, the kernel included
  bool medium = false;     // of CD-ROM drives: fail when there is none
};

// Throws where the system has no file of this name. VERB: what cannot be done for that.
void check_name(const std::string& path, std::string_view verb);
// Opens PATH, which must be of that KIND, without waiting for the other end of a FIFO or for a
// medium. Throws with QEMU's words. Blocks while a drive answers.
OwnFd open_file(FileKind kind, const std::string& path, const OpenMode& mode);

}  // namespace cairn
