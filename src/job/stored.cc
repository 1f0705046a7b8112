#include "job/stored.h"

#include "base/arith.h"
#include "block/context.h"
#include "block/work_report.h"

namespace cairn {

Task<void> check_stored(std::vector<StoredPart> parts, const CancelSource& cancel) {
  std::erase_if(parts, [](const StoredPart& part) {
    return part.node == nullptr || part.node->context().profile.past_end != PastEnd::kRefuse;
  });
  uint64_t total = 0;
  for (const StoredPart& part : parts)
    total = checked_add(total, part.node->length()).value_or(UINT64_MAX);
  uint64_t before = 0;
  for (const StoredPart& part : parts) {
    Node& node = *part.node;
    for (uint64_t at = 0; at < node.length();) {
      cancel.check();
      const uint64_t rest = node.length() - at;
      Extent extent;
      if (part.whole_chain)
        extent = co_await node.extent_at(at, rest);
      else
        extent = co_await node.layer_extent_at(at, rest);
      at += extent.length;
      report_work(node.context(), "look-over", checked_add(before, at).value_or(UINT64_MAX), total);
    }
    before = checked_add(before, node.length()).value_or(UINT64_MAX);
  }
}

uint64_t lost_with(const Node& node, uint64_t offset, const Error& error) {
  const uint64_t cluster = node.limits().cluster_bytes;
  // Sectors of one cluster may come from the layer below.
  if (error.kind() != ErrorKind::kCorrupt || node.context().profile.salvage_by_sector ||
      cluster == 0 || node.backing() != nullptr)
    return 0;
  return cluster - offset % cluster;
}

}  // namespace cairn
