#pragma once

#include <string>
#include <string_view>

#include "block/node.h"

namespace cairn {

// Files next to the file in which an image is, named after it.

// The name of FILE's companion with SUFFIX; empty when FILE is not a plain file (filters are seen
// through).
std::string side_file_name(Node& file, std::string_view suffix);
// True when there is something of that name.
bool side_file_exists(const std::string& path);
// Creates it, for the owner alone, and opens it for writing; its name is on stable storage then.
// Throws kExists when there is something of that name.
Task<NodePtr> create_side_file(Context& context, std::string path);
// Opens it for reading. Throws kInvalid when it is not a regular file.
Task<NodePtr> open_side_file(Context& context, std::string path);
// Removes it; that, too, is on stable storage when it returns.
void remove_side_file(const std::string& path);

}  // namespace cairn
