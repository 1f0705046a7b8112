#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"

namespace cairn {

// A section of a configuration file: [GROUP "ID"] and what follows it.
struct ConfigSection {
  std::string group, id;
  Options values;
  unsigned line = 0;  // of its header
};

// The sections of TEXT, the content of a configuration file of QEMU's emulator: headers, lines
// key = "value", comments and empty lines, with blanks before any. Throws kInvalid, naming
// NAME and the line, for others.
std::vector<ConfigSection> parse_config(std::string_view text, const std::string& name);

}  // namespace cairn
