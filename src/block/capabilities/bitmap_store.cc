#include "block/capabilities/bitmap_store.h"

#include "block/node.h"

namespace cairn {

bool supports_bitmaps(const Node& node) {
  const auto* store = node.as<BitmapStore>();
  return store != nullptr && store->supports_bitmaps();
}

}  // namespace cairn
