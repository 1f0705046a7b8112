#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct BitmapAction {
  enum class Kind { kAdd, kRemove, kClear, kEnable, kDisable, kMerge };
  Kind kind = Kind::kAdd;
  std::string source = {};  // the bitmap whose bits kMerge adds
};
// The word of the command line: "add", "merge", …
std::string_view to_string(BitmapAction::Kind kind);

struct BitmapOptions {
  OpenRequest image;
  std::optional<OpenRequest> merge_from;  // where the bitmaps of kMerge are; none: in the image
  std::string name;                       // of the bitmap that is changed
  uint64_t granularity = 0;               // bytes for a bit of a new one; 0: the format's choice
  std::vector<BitmapAction> actions;      // in their order
};

// Changes a persistent dirty bitmap of an image. Throws what went wrong; what was done before that
// is stored.
Task<void> change_bitmaps(const Caller& caller, BitmapOptions plan);

// The dirty bitmaps of the image of REQUEST, called NAME in messages, as an array of objects with
// name, granularity, enabled, inconsistent and dirty-bytes.
Task<Value> read_bitmaps(Context& context, OpenRequest request, std::string name);

}  // namespace cairn::operation
