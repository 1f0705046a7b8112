#pragma once

#include "cli/session.h"

namespace cairn::cli {

// `--for help`: prints what can be made for whom; the exit code.
int print_presets(const Session& session);

}  // namespace cairn::cli
