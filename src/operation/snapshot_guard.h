#pragma once

#include <string>

#include "block/node.h"
#include "cli/session.h"

namespace cairn::cli {

// Internal snapshots read what they did not store from the backing file, as the image does: who
// changes that file, or names another one, changes what they show. Refused under Cairn's name
// unless FORCE, warned of otherwise. NAME is the image's.
void check_snapshots_stay(const Session& session, const Node& node, const std::string& name,
                          bool force);

}  // namespace cairn::cli
