#include "export/nbd/bitmaps.h"

#include <memory>
#include <utility>

#include "base/error.h"

namespace cairn::nbd::server {
namespace {

// A bitmap that clients see: it must not change under them.
class HeldBitmap {
 public:
  explicit HeldBitmap(DirtyBitmapPtr bitmap) : bitmap_(std::move(bitmap)) {
    bitmap_->set_busy(true);
  }
  ~HeldBitmap() { bitmap_->set_busy(false); }
  HeldBitmap(const HeldBitmap&) = delete;
  const DirtyBitmap& operator*() const { return *bitmap_; }

 private:
  DirtyBitmapPtr bitmap_;
};

}  // namespace

DirtyBitmapPtr bitmap_below(Node& node, const std::string& name) {
  for (Node* layer = &node; layer != nullptr;
       layer = layer->backing() != nullptr ? layer->backing() : layer->filtered())
    if (DirtyBitmapPtr found = layer->bitmaps().find(name)) return found;
  throw Error(ErrorKind::kNotFound, "Bitmap '" + name + "' is not found");
}

void offer_bitmaps(ExportOptions& options, const Node& node,
                   const std::vector<DirtyBitmapPtr>& bitmaps) {
  for (const DirtyBitmapPtr& bitmap : bitmaps) {
    bitmap->check_readable();
    // Two holders would share one mark, and the first to go would take it off for both.
    if (bitmap->busy())
      throw Error(ErrorKind::kInvalid,
                  "Bitmap '" + bitmap->name() +
                      "' is currently in use by another operation and cannot be used");
    if (!options.writable && bitmap->enabled() && !node.read_only())
      throw Error(ErrorKind::kInvalid,
                  "Enabled bitmap '" + bitmap->name() + "' incompatible with readonly export");
  }
  for (const DirtyBitmapPtr& bitmap : bitmaps) {
    const auto held = std::make_shared<const HeldBitmap>(bitmap);
    options.bitmaps.emplace_back(bitmap->name(), [held](uint64_t offset, uint64_t max) {
      const DirtyBitmap::Run run = (**held).run_at(offset, max);
      return DirtyRun{.length = run.length, .dirty = run.dirty};
    });
  }
}

}  // namespace cairn::nbd::server
