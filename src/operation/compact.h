#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct CompactOptions {
  OpenRequest source;
  std::string name;        // of the image
  std::string target;      // of a new image; empty: the new one takes the place of the old one
  bool overwrite = false;  // replaces a target that exists
  Options given;           // of creation, where they differ from those of the image
  std::optional<uint64_t> level;  // of compression
  bool compress = false;          // what is not compressed yet
};

struct CompactResult {
  uint64_t before = 0;  // bytes on the host
  uint64_t after = 0;
  bool kept = false;  // the new file was not smaller: the old one stays, nothing was changed
};

// Throws kInvalid for an option in GIVEN that would make another disk of the image, or cannot be
// kept.
void check_compact_options(const Options& given);

// Rewrites a qcow2 image, in the order of the disk, and compares before the new one takes any
// place. Throws what went wrong; the old image is untouched then.
Task<CompactResult> compact(Caller& caller, CompactOptions options);

}  // namespace cairn::operation
