#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"
#include "operation/pipes.h"

namespace cairn::operation {

struct DdOptions {
  OpenRequest source;
  std::string in;   // its name
  std::string out;  // of the new image
  std::string format = "raw";
  uint64_t block = 512;           // bytes
  std::optional<uint64_t> count;  // blocks; where reading ends, counted from the start of the disk
  uint64_t skip = 0;              // blocks
  bool overwrite = false;         // replaces an image that exists
  PipeTarget::Take take_output;   // gives standard output, where OUT is that
};

// Copies blocks of a disk to a new image, and gives the number of bytes. Throws what went wrong;
// what was made is gone then. Not from a task.
uint64_t dd(Caller& caller, DdOptions options);

}  // namespace cairn::operation
