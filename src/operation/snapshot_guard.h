#pragma once

#include <string>

#include "block/node.h"
#include "operation/caller.h"

namespace cairn::operation {

// Internal snapshots read what they did not store from the backing file, as the image does: who
// changes that file, or names another one, changes what they show. Refused for a guarded
// CALLER unless FORCE, warned of otherwise. NAME is the image's.
void check_snapshots_stay(const Caller& caller, const Node& node, const std::string& name,
                          bool force);

}  // namespace cairn::operation
