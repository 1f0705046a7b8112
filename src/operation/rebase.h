#pragma once

#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct RebaseOptions {
  OpenRequest overlay;
  std::string backing;     // the new backing file; empty: none
  std::string format;      // its format; empty: detected
  CacheMode cache;         // of the overlay
  CacheMode source_cache;  // of the backing files
  bool unsafe = false;     // changes the name alone: the disk may have other content then
  bool compress = false;
  bool force_share = false;  // opens the backing files although others write to them
  bool force = false;        // although snapshots will show other content
};

// Gives an overlay another backing file; the disk keeps its content. Throws what went wrong.
Task<void> rebase(Caller& caller, RebaseOptions options);

}  // namespace cairn::operation
