#include "daemon/handover/jobs.h"

#include <algorithm>

#include "async/finally.h"
#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/fields.h"
#include "daemon/journal/job_journal.h"
#include "job/live/disk_job.h"

namespace cairn::daemon {
namespace {

using live::JobPtr;
using live::JobStatus;

// Oldest first: a job may work above the filter of another one.
std::vector<JobPtr> jobs_of(Daemon& daemon) {
  std::vector<JobPtr> jobs = daemon.jobs().list();
  std::reverse(jobs.begin(), jobs.end());
  return jobs;
}

bool works(JobStatus status) {
  return status == JobStatus::kCreated || status == JobStatus::kRunning ||
         status == JobStatus::kPaused || status == JobStatus::kReady ||
         status == JobStatus::kStandby;
}

}  // namespace

void check_jobs(Daemon& daemon) {
  for (const JobPtr& job : jobs_of(daemon)) {
    const JobRecipes::Recipe* recipe = daemon.job_recipes().find(job);
    // What becomes of the bitmap is the end of the job's own.
    const bool again = recipe != nullptr && recipe->arguments.find("bitmap") == nullptr &&
                       works(job->info().status);
    if (!again)
      throw Error(ErrorKind::kLocked, "job '" + job->id() +
                                          "' would be lost: wait for its end and dismiss it, or "
                                          "cancel it");
  }
}

Task<Value> suspend_jobs(Daemon& daemon) {
  Value list = Value::array();
  for (const JobPtr& job : jobs_of(daemon)) {
    const JobRecipes::Recipe* recipe = daemon.job_recipes().find(job);
    const live::JobInfo info = job->info();
    // One that has just ended by itself needs nothing any more.
    if (recipe == nullptr || !works(info.status)) continue;
    Value one = Value::object();
    one.set("command", recipe->command);
    one.set("arguments", recipe->arguments);
    one.set("speed", info.speed);
    one.set("paused", info.status == JobStatus::kPaused || info.status == JobStatus::kStandby);
    co_await job->cancel(true);
    co_await job->concluded();
    if (daemon.jobs().find(job->id()) == job) job->dismiss();
    const auto* disk_job = dynamic_cast<const live::DiskJob*>(job.get());
    if (const DirtyBitmapPtr left = disk_job == nullptr ? nullptr : disk_job->remaining()) {
      Value bitmap = Value::object();
      bitmap.set("granularity", left->granularity());
      bitmap.set("length", left->length());
      bitmap.set("dirty", runs_of(*left));
      one.set("remaining", std::move(bitmap));
    }
    list.push_back(std::move(one));
  }
  co_return list;
}

Task<void> resume_jobs(Daemon& daemon, Value jobs, bool whole) {
  const auto* list = jobs.get_if<Value::Array>();
  if (list == nullptr) co_return;
  for (const Value& one : *list) {
    const std::string command = text_of(one, "command");
    Value arguments = member_of(one, "arguments");
    arguments.set("speed", member_of(one, "speed"));
    const std::string id = text_of(arguments, "job-id");
    if (const Value* left = one.find("remaining"); left != nullptr && !whole) {
      const auto bitmap =
          std::make_shared<DirtyBitmap>("", unsigned_in(member_of(*left, "length")),
                                        unsigned_in(member_of(*left, "granularity")));
      mark_runs(*bitmap, elements_of(*left, "dirty"));
      daemon.job_recipes().set_remaining(id, bitmap);
    }
    if (!JobRecipes::concerns(command)) invalid("'" + command + "' begins no job");
    co_await finally(
        [&]() -> Task<void> { co_await find_command(command)->run(daemon, arguments); },
        [&]() -> Task<void> {
          // No other job of this name is to begin with it.
          daemon.job_recipes().take_remaining(id);
          co_return;
        });
    const JobPtr job = daemon.jobs().find(id);
    daemon.job_recipes().note(command, arguments, job);
    if (daemon.journal() != nullptr) co_await daemon.journal()->note(id, command, arguments);
    if (flag_of(one, "paused", false) && job != nullptr && works(job->info().status)) job->pause();
  }
}

}  // namespace cairn::daemon
