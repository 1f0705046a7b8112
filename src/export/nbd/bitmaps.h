#pragma once

#include "block/dirty_bitmap.h"
#include "block/node.h"
#include "export/nbd/nbd_export.h"

namespace cairn::nbd::server {

// The first bitmap called NAME from NODE downwards: through backing files, and through filters to
// what they filter. Throws kNotFound.
DirtyBitmapPtr bitmap_below(Node& node, const std::string& name);

// Makes the export of NODE that OPTIONS describe offer BITMAP under its own name. While the export
// lives, nobody may change or remove the bitmap. OPTIONS say already whether clients may write;
// their node may be one that passes requests on to NODE. Throws kInvalid where the bitmap cannot be
// read, is in use already, or would be changed by others below clients that only read.
void offer_bitmap(ExportOptions& options, const Node& node, DirtyBitmapPtr bitmap);

}  // namespace cairn::nbd::server
