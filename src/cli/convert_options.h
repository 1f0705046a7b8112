#pragma once

#include "cli/session.h"
#include "operation/conversion.h"

namespace cairn::cli {

// How `convert` copies, from its command line. Fails where a value makes no sense.
ConvertOptions convert_job_options(const Session& session, const Arguments& arguments);
// Fails when options of `convert` are given that do not go together.
void check_convert_conflicts(const Session& session, const Arguments& arguments);

}  // namespace cairn::cli
