// src/job/live: jobs that run while others use the disks on which they work, and can be paused,
// slowed down and cancelled. Each is a Job; Jobs has the list, transactions and events. They print
// nothing and know no JSON: results and events are structs. May include src/job, src/block and
// below.
#pragma once

#include "job/live/job.h"
#include "job/live/jobs.h"
#include "job/live/types.h"
