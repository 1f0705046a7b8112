#pragma once

#include <string>

#include "operation/nodes.h"

namespace cairn::operation {

// Throws kInvalid when PARAMETER has options that no snapshot has.
void check_snapshot_parameter(const std::string& parameter);

// Makes NODE show the snapshot that PARAMETER names: "snapshot.id=…,snapshot.name=…", or a word
// that is an ID or else a name. Throws with QEMU's words.
Task<void> show_snapshot(Node& node, std::string parameter);

enum class SnapshotAction { kList, kCreate, kApply, kDelete };

// Opens the image of REQUEST and does ACTION with the internal snapshot called NAME; kList gives
// the list, and nothing where the format has none. Throws what went wrong.
Task<Value> act_on_snapshots(Context& context, OpenRequest request, SnapshotAction action,
                             std::string name);

}  // namespace cairn::operation
