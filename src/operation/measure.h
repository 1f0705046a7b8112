#pragma once

#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Throws kInvalid unless each of OPTIONS is known to DRIVER or to files, and of its type.
void check_measure_options(const Registry& registry, const Driver& driver, const Options& options);

// How large a new image of DRIVER with OPTIONS gets whose disk has SIZE bytes.
Task<MeasureResult> measure(Context& context, const Driver& driver, Options options, uint64_t size);
// The same for an image that holds the disk of the image of REQUEST, or
// of its internal SNAPSHOT unless that is empty.
Task<MeasureResult> measure(Context& context, const Driver& driver, Options options,
                            OpenRequest request, std::string snapshot);

}  // namespace cairn::operation
