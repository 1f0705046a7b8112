#pragma once

#include <string>

#include "block/context.h"
#include "block/object_types.h"

namespace cairn::operation {

// The properties of an object out of "TYPE,KEY=VALUE,…" or a JSON object; qom-type is the type.
// Throws kInvalid when it is neither, or a JSON value is not of the type that its property takes.
Options parse_object(const std::string& definition);

// Makes the group ID out of limits as people give them: "bps-total=10M,iops-total=100". Throws
// kInvalid, with LIMITS.
void add_throttle_group(Context& context, const std::string& id, const std::string& limits);

}  // namespace cairn::operation
