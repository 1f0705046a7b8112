#pragma once

#include "async/task.h"
#include "daemon/job_starts.h"
#include "daemon/journal/job_disks.h"
#include "daemon/journal/journal_text.h"

namespace cairn::daemon {

class Daemon;

// Makes what JOB, of an earlier daemon, needs of the graph, and gives what it begins with where it
// was. FOUND: what became of its files. Throws why it cannot be continued.
Task<JobStart> restore_job(Daemon& daemon, JournalJob job, DisksFound found);

}  // namespace cairn::daemon
