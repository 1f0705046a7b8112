#pragma once

#include "cli/session.h"
#include "operation/serve_vhost_user.h"

namespace cairn::cli {

// Runs PLAN, and prints where each disk is once virtual machines can connect.
int serve_vhost_user(Session& session, operation::VhostUserPlan plan, bool quiet);

}  // namespace cairn::cli
