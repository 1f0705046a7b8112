#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "block/node.h"

namespace cairn {

// The persistent bitmaps of SOURCE's own layer, for copy_bitmaps(). Inconsistent ones are left out
// with a line to WARN when SKIP_BROKEN is set; else they, like a source whose format keeps no
// bitmaps, are an error.
std::vector<DirtyBitmapPtr> bitmaps_to_copy(const Node& source, bool skip_broken,
                                            const std::function<void(std::string_view)>& warn);

// Makes persistent bitmaps of the same names, granularities, states and contents in TARGET, which
// has their length and is open for writing. Throws the first error; what was copied before stays.
void copy_bitmaps(const std::vector<DirtyBitmapPtr>& bitmaps, Node& target);

}  // namespace cairn
