#pragma once

#include <cstdint>
#include <string>

#include "block/capability.h"
#include "block/dirty_bitmap.h"

namespace cairn {

class Node;

// A format that keeps dirty bitmaps in the image. The node loads them when it is opened and stores
// the persistent ones of Node::bitmaps() when it is closed.
class BitmapStore {
 public:
  static constexpr CapabilityTag kCapability{"bitmap-store"};

  // Whether this image can keep any.
  virtual bool supports_bitmaps() const { return true; }
  // Throws when the image cannot keep a bitmap like this in addition to those it has. Nothing is
  // changed. From any thread.
  virtual void check_new_persistent_bitmap(const std::string& name, uint64_t granularity) const = 0;

 protected:
  ~BitmapStore() = default;
};

// Whether NODE's image can keep persistent dirty bitmaps.
bool supports_bitmaps(const Node& node);
// Makes a dirty bitmap of NODE's length, one of Node::bitmaps(). A persistent one is stored when
// the node is closed. Throws with QEMU's words: kExists, kInvalid for names and granularities,
// kUnsupported where the format cannot keep it.
DirtyBitmapPtr add_bitmap(Node& node, const BitmapRequest& request);
// The granularity of bitmaps for which none is asked: the cluster size, 4 to 64 KiB.
uint64_t default_bitmap_granularity(const Node& node);

}  // namespace cairn
