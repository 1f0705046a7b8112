#pragma once

#include <string>

#include "block/capabilities/amendable.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Throws kInvalid with QEMU's wording unless what GIVEN has for SPEC is of its type.
void check_option(const OptionSpec& spec, const Options& given);

// Opens the image of REQUEST and changes its options; gives the name of its format. Throws what
// went wrong.
Task<std::string> amend(const Caller& caller, OpenRequest request, AmendRequest changes);

// The format of the image of REQUEST.
Task<std::string> format_of_image(Context& context, OpenRequest request);

}  // namespace cairn::operation
