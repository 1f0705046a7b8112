#include "block/capabilities/bitmap_store.h"

#include <algorithm>

#include "base/arith.h"
#include "base/error.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

bool supports_bitmaps(const Node& node) {
  const auto* store = node.as<BitmapStore>();
  return store != nullptr && store->supports_bitmaps();
}

uint64_t default_bitmap_granularity(const Node& node) {
  const uint64_t cluster = node.limits().cluster_bytes;
  return std::clamp<uint64_t>(cluster == 0 ? 65536 : cluster, 4096, 65536);
}

DirtyBitmapPtr add_bitmap(Node& node, const BitmapRequest& request) {
  if (request.name.empty()) throw Error(ErrorKind::kInvalid, "Bitmap name cannot be empty");
  const uint64_t granularity =
      request.granularity != 0 ? request.granularity : default_bitmap_granularity(node);
  if (!is_power_of_two(granularity) || granularity < DirtyBitmap::kMinGranularity ||
      granularity > DirtyBitmap::kMaxGranularity)
    throw Error(ErrorKind::kInvalid, "Granularity must be power of 2 and at least 512");
  const auto* store = node.as<BitmapStore>();
  if (request.persistent && store == nullptr)
    throw Error::system(ENOTSUP,
                        "Can't store persistent bitmaps to " + (node.context().profile.nodes_by_file
                                                                    ? "'" + node.filename() + "'"
                                                                    : node.node_name()));
  if (node.bitmaps().find(request.name))
    throw Error(ErrorKind::kExists, "Bitmap already exists: " + request.name);
  if (request.persistent) store->check_new_persistent_bitmap(request.name, granularity);
  auto bitmap = std::make_shared<DirtyBitmap>(request.name, node.length(), granularity);
  bitmap->set_enabled(request.enabled);
  bitmap->set_persistent(request.persistent);
  node.bitmaps().add(bitmap);
  return bitmap;
}

}  // namespace cairn
