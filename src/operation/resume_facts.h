#pragma once

#include <string>
#include <vector>

#include "operation/conversion.h"
#include "operation/copy_record.h"

namespace cairn::operation {

// What makes a conversion the same as an earlier one. Nothing in it is secret: names, which may
// have passwords in them, are digests.

// What was asked for.
std::vector<CopyRecord::Fact> facts_of(const ConversionOptions& options);
// The whole chain of each source: formats, lengths and what its storage knows of its state.
std::vector<CopyRecord::Fact> facts_of(const std::vector<NodePtr>& sources);

// What stands for a name: the same for the same one.
std::string name_digest(const std::string& name);

}  // namespace cairn::operation
