#pragma once

#include <exception>
#include <vector>

#include "block/open.h"

namespace cairn::operation {

// Closes NODES (null ones are left out), whatever happens, then throws ERROR, or else the first
// error of closing.
Task<void> close_all(std::vector<NodePtr> nodes, std::exception_ptr error = nullptr);

// As open_node(); what the image was to have as its backing file is closed when that fails.
Task<NodePtr> open_over_backing(Context& context, OpenRequest request);

// As open_node(); with OVERLAY a temporary overlay over the image takes the writes and goes when it
// is closed.
Task<NodePtr> open_image(Context& context, OpenRequest request, bool overlay);

// What people call the image of REQUEST.
std::string shown_name(const OpenRequest& request);

}  // namespace cairn::operation
