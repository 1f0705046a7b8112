#pragma once

#include <optional>
#include <string>

#include "cli/session.h"

namespace cairn::cli {

// -T of QEMU's tools. There are no trace events here: the argument is checked as theirs is, and an
// event that is named gets a warning. The exit code of the program when it ends there: the list of
// events, which is empty, was asked for, or the file of events cannot be read.
std::optional<int> take_trace(const Session& session, const std::string& definition);

}  // namespace cairn::cli
