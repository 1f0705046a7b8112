#pragma once

#include "operation/operation.h"

namespace cairn::cli {

// What the environment variables of docs/environment.md say; only the program reads them. Threads
// and rings are not yet made.
void take_environment(Context& context);

}  // namespace cairn::cli
