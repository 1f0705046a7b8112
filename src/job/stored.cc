#include "job/stored.h"

#include "block/context.h"

namespace cairn {

Task<void> check_stored(Node* node, bool whole_chain, const CancelSource& cancel) {
  if (node == nullptr || node->context().profile.past_end != PastEnd::kRefuse) co_return;
  for (uint64_t at = 0; at < node->length();) {
    cancel.check();
    const uint64_t rest = node->length() - at;
    Extent extent;
    if (whole_chain)
      extent = co_await node->extent_at(at, rest);
    else
      extent = co_await node->layer_extent_at(at, rest);
    at += extent.length;
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
