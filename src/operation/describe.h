#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// What is known of a node and its children, as an object with QEMU's names of members. The backing
// file is named, not described.
Task<Value> describe(Node& node);

// Opens the image of REQUEST, without its backing file, and describes it; with CHAIN also each
// image below it, in the order of the chain. Throws what went wrong, also for a chain that has no
// end or a layer without a name.
std::vector<Value> describe_images(const Caller& caller, OpenRequest request, bool chain,
                                   bool force_share);

// A member of an object as text, or as a number; empty and 0 when there is none.
std::string text_of(const Value& object, std::string_view key);
uint64_t number_of(const Value& object, std::string_view key);

}  // namespace cairn::operation
