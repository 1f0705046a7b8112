#include "operation/snapshot_guard.h"

#include <fmt/core.h>

#include "block/capabilities/snapshot_store.h"

namespace cairn::operation {

void check_snapshots_stay(const Caller& caller, const Node& node, const std::string& name,
                          bool force) {
  const size_t count = snapshots_of(node).size();
  if (count == 0) return;
  const std::string text =
      fmt::format("'{}' has {}{} other content when its backing file changes", name, count,
                  count == 1 ? " internal snapshot that shows" : " internal snapshots that show");
  if (caller.guarded && !force)
    throw Error(ErrorKind::kInvalid, text)
        .hint(
            "Nothing was changed. Copy the snapshots first with `cairn convert -l`, or give them "
            "up.",
            "force");
  caller.warn(text);
}

}  // namespace cairn::operation
