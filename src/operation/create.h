#pragma once

#include <cstdint>
#include <optional>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Makes the image of OPTIONS; with OVERWRITE it replaces one that exists. Throws what went wrong.
// Not from a task.
void create(Caller& caller, CreateOptions options, bool overwrite);

// Takes compression_level out of OPTIONS: it belongs to the work, not to the image. Throws kInvalid
// when compression_type does not have such a level.
std::optional<uint64_t> take_compression_level(Options& options);

// The bytes of the disk in the image of REQUEST.
Task<uint64_t> size_of_disk(Context& context, OpenRequest request);

}  // namespace cairn::operation
