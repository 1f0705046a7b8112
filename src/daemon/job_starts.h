#pragma once

#include <string>
#include <vector>

#include "async/task.h"
#include "base/value.h"
#include "daemon/job_recipes.h"

namespace cairn::daemon {

class Daemon;

// What begins a job again.
struct JobStart {
  std::string command;  // one that JobRecipes concerns
  Value arguments;      // checked
  JobRecipes::Left left = {};
};

// Begins jobs again, which conclude together where they are several: all of them, or none. Throws
// what the commands throw.
Task<void> begin_jobs(Daemon& daemon, std::vector<JobStart> starts);

}  // namespace cairn::daemon
