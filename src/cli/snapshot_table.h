#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/value.h"
#include "block/node.h"

namespace cairn::cli {

// A member of an object as text, or as a number; empty and 0 when there is none.
std::string text_of(const Value& object, std::string_view key);
uint64_t number_of(const Value& object, std::string_view key);

// An object or array as indented lines, as `info` shows what only one format knows.
void print_tree(const Value& value, size_t indent);

// The table of internal snapshots, each line behind INDENT.
void print_snapshots(const Value& list, const std::string& indent);

// Throws kInvalid when PARAMETER has options that no snapshot has.
void check_snapshot_parameter(const std::string& parameter);

// -l: makes NODE show the snapshot that PARAMETER names: "snapshot.id=…,snapshot.name=…", or a word
// that is an ID or else a name. Throws with QEMU's words.
Task<void> show_snapshot(Node& node, std::string parameter);

}  // namespace cairn::cli
