#include "job/bitmaps.h"

#include "block/capabilities/bitmap_store.h"

namespace cairn {

std::vector<DirtyBitmapPtr> bitmaps_to_copy(const Node& source, bool skip_broken,
                                            const std::function<void(std::string_view)>& warn) {
  if (!supports_bitmaps(source))
    throw Error(ErrorKind::kUnsupported, "Source lacks bitmap support");
  std::vector<DirtyBitmapPtr> result;
  for (DirtyBitmapPtr& bitmap : source.bitmaps().list()) {
    if (!bitmap->persistent()) continue;
    if (!bitmap->inconsistent()) {
      result.push_back(std::move(bitmap));
      continue;
    }
    if (!skip_broken)
      throw Error(ErrorKind::kInvalid, "Cannot copy inconsistent bitmap '" + bitmap->name() + "'")
          .hint("Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it");
    warn("Skipping inconsistent bitmap '" + bitmap->name() + "'");
  }
  return result;
}

void copy_bitmaps(const std::vector<DirtyBitmapPtr>& bitmaps, Node& target) {
  for (const DirtyBitmapPtr& bitmap : bitmaps) {
    const BitmapRequest request{.name = bitmap->name(),
                                .granularity = bitmap->granularity(),
                                .persistent = true,
                                .enabled = bitmap->enabled()};
    DirtyBitmapPtr copy;
    try {
      copy = add_bitmap(target, request);
    } catch (Error& error) {
      throw error.context("Failed to create bitmap " + bitmap->name());
    }
    try {
      copy->merge(*bitmap);
    } catch (Error& error) {
      target.bitmaps().remove(bitmap->name());
      throw error.context("Failed to populate bitmap " + bitmap->name());
    }
  }
}

}  // namespace cairn
