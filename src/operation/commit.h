#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct CommitOptions {
  OpenRequest top;
  std::string name;                 // of the top, for messages
  std::optional<std::string> base;  // the image that is written; none: the backing file of the top
  CacheMode cache;
  uint64_t rate = 0;      // bytes a second at most; 0: any number
  bool empty_top = true;  // the top has no data of its own afterwards
  bool force = false;     // although snapshots will show other content
};

// Writes what the images from the top down to the base hold into the base, and gives the base's
// name. Throws what went wrong.
Task<std::string> commit(Caller& caller, CommitOptions options);

}  // namespace cairn::operation
