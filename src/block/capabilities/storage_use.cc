#include "block/capabilities/storage_use.h"

#include "block/node.h"

namespace cairn {

Task<std::optional<uint64_t>> allocated_bytes_of(Node& node) {
  if (auto* storage = node.as<StorageUse>()) co_return co_await storage->allocated_bytes();
  std::optional<uint64_t> total;
  for (const Child& child : node.children()) {
    if (child.role == ChildRole::kBacking) continue;
    const std::optional<uint64_t> part = co_await allocated_bytes_of(*child.node);
    if (!part) co_return std::nullopt;
    total = total.value_or(0) + *part;
  }
  co_return total;
}

}  // namespace cairn
