#pragma once

#include <string>

#include "block/driver.h"

namespace cairn {

// Throws kUnsupported when INPUT begins as an archive, a backup or another container that holds a
// disk but is none, and names it with what to do next.
void refuse_foreign_content(const ProbeInput& input);

}  // namespace cairn
