#pragma once

#include "operation/operation.h"

namespace cairn::cli::io {

// Throws kInvalid for what cannot CHANGE while NODE and its children are open: what they are and
// where their bytes are. Naming what is so already is no change.
void check_changes(const Node& node, const Options& changes);

// Adds CHANGES that check_changes() passed to the OPTIONS that the image was opened with.
void merge_changes(Options& options, const Options& changes);

}  // namespace cairn::cli::io
