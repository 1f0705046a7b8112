#pragma once

#include <string>

#include "block/object_types.h"

namespace cairn::operation {

// The properties of an object out of "TYPE,KEY=VALUE,…" or a JSON object; qom-type is the type.
// Throws kInvalid when it is neither, or a JSON value is not of the type that its property takes.
Options parse_object(const std::string& definition);

}  // namespace cairn::operation
