#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/value.h"
#include "block/capability.h"
#include "block/snapshot.h"

namespace cairn {

class Node;

// An image whose internal snapshots can be seen.
class SnapshotView {
 public:
  static constexpr CapabilityTag kCapability{"snapshot-view"};

  // Gets the list where opening the image did not: from then on the members that give it know it.
  virtual Task<void> learn_snapshots() { co_return; }
  // The list as `info` shows it; null when there are none. From any thread, while no snapshot is
  // being changed.
  virtual Value snapshots_info() const = 0;
  // From now on the read-only node shows the snapshot with this ID and this name; an empty one
  // counts for nothing. Throws kNotFound, and the node is as it was. No request may be under way.
  virtual Task<void> show_snapshot(std::string id, std::string name) = 0;

 protected:
  ~SnapshotView() = default;
};

// An image whose internal snapshots can be changed. One call at a time, from any worker; no request
// may be under way. After a failure the list and the disk are as before, as far as the file could
// still be written; what was allocated for the change may be lost until the image is repaired.
class SnapshotStore {
 public:
  static constexpr CapabilityTag kCapability{"snapshot-store"};

  // Gives the disk as it is a name.
  virtual Task<void> create_snapshot(std::string name) = 0;
  // Makes the disk what it was at WHICH, an ID or else a name. Throws kNotFound.
  virtual Task<void> apply_snapshot(std::string which) = 0;
  // Takes the first one of that NAME. Throws kNotFound.
  virtual Task<void> delete_snapshot(std::string name) = 0;
  // All of them, as the image lists them.
  virtual std::vector<SnapshotRecord> snapshots() const = 0;
  // From now on the read-only node is as it was at the snapshot with this place in snapshots(), its
  // length and the machine's state included; nothing: as it is now.
  virtual Task<void> show_state(std::optional<size_t> which) = 0;
  // Adds RECORD to the list and gives it the disk as it is, and the machine's state that was
  // written, which leaves the disk by that. The length is the disk's.
  virtual Task<void> record_snapshot(SnapshotRecord record) = 0;

 protected:
  ~SnapshotStore() = default;
};

// The same of any NODE. One without snapshots lists none, throws kUnsupported when one is made,
// applied or shown, and kNotFound when one is deleted; all in QEMU's words.
Task<void> learn_snapshots(Node& node);
Value snapshots_info_of(const Node& node);
std::vector<SnapshotRecord> snapshots_of(const Node& node);
Task<void> create_snapshot(Node& node, std::string name);
Task<void> apply_snapshot(Node& node, std::string which);
Task<void> delete_snapshot(Node& node, std::string name);
Task<void> show_snapshot(Node& node, std::string id, std::string name);
Task<void> show_state(Node& node, std::optional<size_t> which);
Task<void> record_snapshot(Node& node, SnapshotRecord record);

}  // namespace cairn
