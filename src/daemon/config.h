#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cairn::daemon {

// An option as run_option() takes it, and where it was given, for errors.
struct LineStep {
  std::string option, argument, where;
  bool typed = false;   // on the command line, where it may ask for help
  std::string id = {};  // of the section of a file; empty: it has none
};

// What the configuration file PATH asks for, in its order. A section [GROUP "ID"] is the option
// --GROUP, its lines key = "value" are what the option takes, and the ID is the node-name or the
// id; docs/daemon.md describes the format. Throws kInvalid, naming file and line, for sections that
// make no sense, and what reading gives. Opens nothing but PATH.
std::vector<LineStep> read_config(const std::string& path);

}  // namespace cairn::daemon
