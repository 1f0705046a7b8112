#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "operation/describe.h"

namespace cairn::cli {

using operation::number_of;
using operation::text_of;

// An object or array as indented lines, as `info` shows what only one format knows.
std::string tree_text(const Value& value, size_t indent);

// The table of internal snapshots, each line after INDENT.
void print_snapshots(const Value& list, const std::string& indent);

}  // namespace cairn::cli
