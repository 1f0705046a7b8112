#pragma once

#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/node.h"
#include "export/nbd/nbd_export.h"

namespace cairn::nbd::server {

// The first bitmap called NAME from NODE downwards: through backing files, and through filters to
// what they filter. Throws kNotFound.
DirtyBitmapPtr bitmap_below(Node& node, const std::string& name);

// Makes the export of NODE that OPTIONS describe offer BITMAPS, in their order, under their names.
// While the export lives, nobody else may have, change or remove them; one may be named twice.
// OPTIONS say already whether clients may write; their node may be one that passes requests on to
// NODE. Throws kInvalid, having changed nothing, where a bitmap cannot be read, is in use, or would
// be changed by others below clients that only read.
void offer_bitmaps(ExportOptions& options, const Node& node,
                   const std::vector<DirtyBitmapPtr>& bitmaps);

}  // namespace cairn::nbd::server
