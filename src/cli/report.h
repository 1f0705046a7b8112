#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// Prints MEMBERS as the one object that --output json asks for, after "schema": "cairn/WHAT/1".
// WHAT is the verb when it is empty. docs/json.md has the members of each.
void print_report(const Session& session, const Value& members, std::string_view what = {});

// Names as an array.
Value array_of(const std::vector<std::string>& names);
// The options of a command line, as text.
Value object_of(const Options& options);

}  // namespace cairn::cli
