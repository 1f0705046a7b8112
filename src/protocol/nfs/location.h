#pragma once

#include <string>
#include <string_view>

#include "base/options.h"

namespace cairn::nfs {

// The options that "nfs://HOST/EXPORT/PATH/FILE[?NAME=VALUE&…]" stands for: server.type,
// server.host, path, and one for each parameter. A port after the host is passed over. Throws
// kInvalid with QEMU's words.
Options parse_uri(std::string_view uri);

// A path on the server as what is mounted and the file in it, with one slash at its start.
struct Place {
  std::string directory, file;
};
// Splits PATH at its last slash. Throws kInvalid when it has none, or no file after it.
Place split_path(std::string_view path);

// The URI of PATH on HOST; QUERY is what follows the question mark, empty for none.
std::string make_uri(std::string_view host, std::string_view path, std::string_view query);

}  // namespace cairn::nfs
