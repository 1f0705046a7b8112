#include "operation/snapshot.h"

#include "async/finally.h"
#include "block/capabilities/snapshot_store.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn::operation {

void check_snapshot_parameter(const std::string& parameter) {
  if (!parameter.starts_with("snapshot.")) return;
  const Options parsed = Options::parse_list(parameter);
  parsed.string("snapshot.id");
  parsed.string("snapshot.name");
  if (const auto unknown = parsed.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid, "Invalid parameter '" + unknown.front() + "'");
}

Task<void> show_snapshot(Node& node, std::string parameter) {
  std::string id;
  std::string name;
  const bool options = parameter.starts_with("snapshot.");
  if (options) {
    const Options parsed = Options::parse_list(parameter);
    id = parsed.string("snapshot.id").value_or("");
    name = parsed.string("snapshot.name").value_or("");
    try {
      check_snapshot_parameter(parameter);
    } catch (Error& error) {
      throw error.hint((node.context().profile.explanations ? "" : "qemu-img: ") +
                       ("Failed in parsing snapshot param '" + parameter + "'"));
    }
  } else {
    id = parameter;
  }
  bool again = false;
  try {
    co_await show_snapshot(node, id, name);
  } catch (Error& error) {
    again = !options && error.kind() == ErrorKind::kNotFound;
    if (!again) throw error.context("Failed to load snapshot");
  }
  if (!again) co_return;
  try {
    co_await show_snapshot(node, {}, parameter);
  } catch (Error& error) {
    throw error.context("Failed to load snapshot");
  }
}

Task<Value> act_on_snapshots(Context& context, OpenRequest request, SnapshotAction action,
                             std::string name) {
  request.flags.writable = action != SnapshotAction::kList;
  request.flags.resize = action == SnapshotAction::kApply;
  // Only the list is wanted: the backing file is not needed.
  request.flags.no_backing = action == SnapshotAction::kList;
  NodePtr node = co_await open_node(context, std::move(request));
  Value list;
  co_await finally(
      [&]() -> Task<void> {
        try {
          switch (action) {
            case SnapshotAction::kList:
              co_await learn_snapshots(*node);
              list = snapshots_info_of(*node);
              break;
            case SnapshotAction::kCreate:
              co_await create_snapshot(*node, name);
              break;
            case SnapshotAction::kApply:
              co_await apply_snapshot(*node, name);
              break;
            case SnapshotAction::kDelete:
              co_await delete_snapshot(*node, name);
              break;
          }
        } catch (Error& caught) {
          const char* doing = action == SnapshotAction::kCreate  ? "Could not create snapshot '"
                              : action == SnapshotAction::kApply ? "Could not apply snapshot '"
                                                                 : "Could not delete snapshot '";
          throw caught.context(action == SnapshotAction::kList ? "Could not list the snapshots"
                                                               : doing + name + "'");
        }
      },
      [&] { return close_all({node}); });
  co_return list;
}

}  // namespace cairn::operation
