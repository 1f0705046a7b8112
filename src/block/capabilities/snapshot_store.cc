#include "block/capabilities/snapshot_store.h"

#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"

namespace cairn {

Task<void> learn_snapshots(Node& node) {
  if (auto* view = node.as<SnapshotView>()) co_await view->learn_snapshots();
}

Value snapshots_info_of(const Node& node) {
  const auto* view = node.as<SnapshotView>();
  return view != nullptr ? view->snapshots_info() : Value();
}

std::vector<SnapshotRecord> snapshots_of(const Node& node) {
  const auto* store = node.as<SnapshotStore>();
  return store != nullptr ? store->snapshots() : std::vector<SnapshotRecord>();
}

Task<void> create_snapshot(Node& node, std::string name) {
  if (auto* store = node.as<SnapshotStore>()) return store->create_snapshot(std::move(name));
  throw Error::system(ENOTSUP);
}

Task<void> apply_snapshot(Node& node, std::string which) {
  if (auto* store = node.as<SnapshotStore>()) return store->apply_snapshot(std::move(which));
  throw Error(ErrorKind::kUnsupported, "Block driver does not support snapshots");
}

Task<void> delete_snapshot(Node& node, std::string name) {
  if (auto* store = node.as<SnapshotStore>()) return store->delete_snapshot(std::move(name));
  throw Error(ErrorKind::kNotFound, "snapshot not found");
}

Task<void> show_snapshot(Node& node, std::string id, std::string name) {
  if (auto* view = node.as<SnapshotView>())
    return view->show_snapshot(std::move(id), std::move(name));
  throw Error(ErrorKind::kUnsupported,
              "Block format '" + std::string(node.driver().name()) +
                  "' used by device '' does not support temporarily loading internal snapshots");
}

Task<void> show_state(Node& node, std::optional<size_t> which) {
  if (auto* store = node.as<SnapshotStore>())
    co_await store->show_state(which);
  else if (which)
    throw Error::system(ENOTSUP);
}

Task<void> record_snapshot(Node& node, SnapshotRecord record) {
  if (auto* store = node.as<SnapshotStore>()) return store->record_snapshot(std::move(record));
  throw Error::system(ENOTSUP);
}

}  // namespace cairn
