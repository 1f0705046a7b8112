#pragma once

#include <vector>

#include "async/task.h"
#include "base/value.h"
#include "daemon/handover/state.h"

namespace cairn::daemon {

class Daemon;

// Throws kLocked where a job cannot be begun again: it would be lost.
void check_jobs(Daemon& daemon);
// Ends all jobs, so that nothing of them is in the graph, while nobody else uses the disks. Gives
// what they have left to do; what they have copied must be flushed before that holds. No event says
// so.
Task<Value> suspend_jobs(Daemon& daemon);
// Begins them again. WHOLE: with all that there was to do. Throws what the commands throw.
Task<void> resume_jobs(Daemon& daemon, Value jobs, bool whole, Complaint complain = nullptr);

}  // namespace cairn::daemon
