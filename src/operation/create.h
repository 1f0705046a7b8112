#pragma once

#include <cstdint>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Makes the image of OPTIONS; with OVERWRITE it replaces one that exists. Throws what went wrong.
// Not from a task.
void create(Caller& caller, CreateOptions options, bool overwrite);

// The bytes of the disk in the image of REQUEST.
Task<uint64_t> size_of_disk(Context& context, OpenRequest request);

}  // namespace cairn::operation
