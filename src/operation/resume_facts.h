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

// Whether all storage of SOURCES says when it has changed.
bool tell_of_changes(const std::vector<NodePtr>& sources);

// Throws kInvalid that says what differs, where a copy of RECORD, from the file JOURNAL, is not the
// one that has the facts NOW. CREATE: the target is made by the copy.
void require_same(const CopyRecord& record, const std::vector<CopyRecord::Fact>& now,
                  const std::string& journal, bool create);

// Why a copy into TARGET needs the name of a file for its journal.
Error no_place_for_journal(const std::string& target);

// What stands for a name: the same for the same one.
std::string name_digest(const std::string& name);

}  // namespace cairn::operation
