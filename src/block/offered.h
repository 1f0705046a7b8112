#pragma once

#include "block/context.h"

namespace cairn {

// What drivers have less the extensions that the Context's Profile does not offer. Programs ask
// here for what they let users choose.

// The option KEY of SCHEMA; null when there is none, or none on offer.
const OptionSpec* offered_option(const Context& context, const OptionSchema& schema,
                                 std::string_view key);
bool is_check_offered(const Node& node);
bool is_repair_offered(const Node& node);
// DRIVER's measure(). Throws kUnsupported when it does not measure, or that is not on offer.
Task<MeasureResult> measure_image(Context& context, const Driver& driver, Options options,
                                  uint64_t size, NodePtr source);

}  // namespace cairn
