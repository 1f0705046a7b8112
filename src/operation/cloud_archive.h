#pragma once

#include <string>
#include <vector>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Writes the disk of SOURCES, one after the other and filled up with zeroes to SIZE bytes, to the
// new file TARGET: a tar archive in GNU's old layout, packed by gzip, that holds `disk.raw`. Then
// reads it back and compares; throws what differs.
Task<void> write_cloud_archive(Caller& caller, std::vector<NodePtr> sources, uint64_t size,
                               std::string target);

}  // namespace cairn::operation
