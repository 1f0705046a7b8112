#include "block/capabilities/lockable.h"

#include "block/node.h"

namespace cairn {

Task<void> set_permissions(Node& node, Permissions permissions) {
  if (auto* storage = node.as<Lockable>()) co_await storage->set_permissions(permissions);
}

}  // namespace cairn
