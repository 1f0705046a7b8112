#pragma once

#include "block/driver.h"

namespace cairn::vmdk {

// Throws kInvalid in QEMU's words when the options do not go together.
void check_create_options(const Options& options);
// Makes the disk: the descriptor in request.file, extents next to it. What it made is removed again
// when it fails.
Task<void> create_disk(Context& context, CreateRequest request);

}  // namespace cairn::vmdk
