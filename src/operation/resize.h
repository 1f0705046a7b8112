#pragma once

#include <cstdint>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct ResizeOptions {
  enum class From { kNothing, kLargerBy, kSmallerBy };
  From from = From::kNothing;  // what BYTES are counted from
  uint64_t bytes = 0;
  bool shrink = false;  // content past the new end may be lost
  Preallocation preallocation = Preallocation::kOff;
};

struct ResizeResult {
  uint64_t before = 0;
  uint64_t after = 0;
  // The disk would have become smaller, which was not allowed: nothing was changed.
  bool must_shrink = false;
};

// Opens the image of REQUEST and gives the disk another size. Throws what went wrong.
Task<ResizeResult> resize(Context& context, OpenRequest request, ResizeOptions options);

}  // namespace cairn::operation
