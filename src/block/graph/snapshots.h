#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "block/graph/action.h"
#include "block/graph/graph.h"
#include "block/snapshot.h"

namespace cairn {

// The users of the node called NODE move to the node called OVERLAY, whose backing file it becomes;
// it is read-only then. Prepared, it throws in QEMU's words where the overlay is in use, has a
// backing file or can have none, or where somebody relies on the node.
std::unique_ptr<GraphAction> snapshot_action(Graph& graph, std::string node, std::string overlay);

struct SnapshotFile {
  std::string node;     // which is to get an overlay
  std::string file;     // the overlay's name
  std::string overlay;  // its node name
  std::string format = "qcow2";
  bool existing = false;  // it is there; otherwise it is made, and stays when that fails
  std::function<void(std::string_view)> announce = {};  // "Formatting …"
};
// The same with an overlay that is made, or opened, for it, and goes with its users.
std::unique_ptr<GraphAction> snapshot_file_action(Graph& graph, SnapshotFile request);

// A snapshot NAME inside of the image of the node called NODE, which nothing is above.
std::unique_ptr<GraphAction> internal_snapshot_action(Graph& graph, std::string node,
                                                      std::string name);
// Deletes one inside of NODE, and gives what it was. ID or NAME may be empty, but not both.
Task<SnapshotRecord> delete_internal_snapshot(Graph& graph, std::string node, std::string id,
                                              std::string name);

}  // namespace cairn
