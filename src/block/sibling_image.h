#pragma once

#include <functional>
#include <string>

#include "async/task.h"
#include "base/bytes.h"
#include "base/uuid.h"
#include "block/open.h"

namespace cairn {

// Some programs (VirtualBox) name the parent of an image by its identifier alone and keep the path
// in a registry of their own. Such a parent is looked for where that program keeps it.

// The path of a regular file whose start, at most 64 KiB, MATCHES: in the directory of the file
// IMAGE, in its `Snapshots`, and in the directory above. Only files that REFERENCES allows are
// looked at. Empty when there is none, or when IMAGE is no file of this machine. Throws kDenied,
// with the UUID that is WANTED, when REFERENCES allows nothing.
Task<std::string> find_sibling_image(std::string image, ReferencePolicy references, Uuid wanted,
                                     std::function<bool(ByteSpan start)> matches);

// The error for a parent that was not found. WHAT names the format.
[[noreturn]] void refuse_lost_parent(const std::string& what, const Uuid& parent);

}  // namespace cairn
