#pragma once

#include "job/compare.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Opens two images and compares their disks; no notes when QUIET. Throws CompareFailure when one of
// them cannot be read.
Task<CompareResult> compare(Caller& caller, OpenRequest first, OpenRequest second,
                            CompareOptions options, bool quiet);

}  // namespace cairn::operation
