#include "job/stored.h"

#include "block/context.h"

namespace cairn {

Task<void> check_stored(Node* node, bool whole_chain, const CancelSource& cancel) {
  if (node == nullptr || !node->context().beyond_qemu) co_return;
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

}  // namespace cairn
