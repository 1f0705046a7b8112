#pragma once

#include <functional>

#include "job/bench.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Opens the image of REQUEST, or an overlay over it that goes afterwards, calls OPENED, and gives
// the seconds that the requests of OPTIONS took. Throws what went wrong.
Task<double> bench(const Caller& caller, OpenRequest request, BenchOptions options, bool overlay,
                   std::function<void()> opened);

}  // namespace cairn::operation
