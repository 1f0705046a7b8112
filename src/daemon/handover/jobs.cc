#include "daemon/handover/jobs.h"

#include <algorithm>

#include "async/finally.h"
#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/fields.h"
#include "daemon/journal/job_disks.h"
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

// BITMAP as the member NAME of ONE; null: none.
void set_bitmap(Value& one, const char* name, const DirtyBitmapPtr& bitmap) {
  if (bitmap == nullptr) return;
  Value fields = Value::object();
  fields.set("granularity", bitmap->granularity());
  fields.set("length", bitmap->length());
  fields.set("dirty", runs_of(*bitmap));
  one.set(name, std::move(fields));
}

DirtyBitmapPtr bitmap_of(const Value& one, const char* name) {
  const Value* fields = one.find(name);
  if (fields == nullptr) return nullptr;
  auto bitmap = std::make_shared<DirtyBitmap>("", unsigned_in(member_of(*fields, "length")),
                                              unsigned_in(member_of(*fields, "granularity")));
  mark_runs(*bitmap, elements_of(*fields, "dirty"));
  return bitmap;
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
    const bool again = recipe != nullptr && works(job->info().status);
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
    {
      // Nodes that only the job has go with it.
      JournalJob disks;
      disks.id = job->id();
      const auto change = co_await daemon.graph().change();
      capture_disks(daemon.graph(), disks);
      one.set("recipes", Value(Value::Array(disks.recipes)));
    }
    co_await job->cancel(true);
    co_await job->concluded();
    if (daemon.jobs().find(job->id()) == job) job->dismiss();
    const auto* disk_job = dynamic_cast<const live::DiskJob*>(job.get());
    if (disk_job != nullptr) {
      set_bitmap(one, "remaining", disk_job->remaining());
      set_bitmap(one, "written-since", disk_job->written_since());
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
    JournalJob disks;
    disks.arguments = member_of(one, "arguments");
    // Other versions have none.
    if (one.find("recipes") != nullptr) disks.recipes = elements_of(one, "recipes");
    {
      const auto change = co_await daemon.graph().change();
      disks = co_await restore_disks(daemon.graph(), disks);
    }
    Value arguments = disks.arguments;
    arguments.set("speed", member_of(one, "speed"));
    const std::string id = text_of(arguments, "job-id");
    if (!whole)
      daemon.job_recipes().set_left(id, {.remaining = bitmap_of(one, "remaining"),
                                         .written_since = bitmap_of(one, "written-since")});
    if (!JobRecipes::concerns(command)) invalid("'" + command + "' begins no job");
    co_await finally(
        [&]() -> Task<void> { co_await find_command(command)->run(daemon, arguments); },
        [&]() -> Task<void> {
          // No other job of this name is to begin with it.
          daemon.job_recipes().take_left(id);
          co_return;
        });
    const JobPtr job = daemon.jobs().find(id);
    daemon.job_recipes().note(command, arguments, job);
    if (daemon.journal() != nullptr) co_await daemon.journal()->note_new();
    if (flag_of(one, "paused", false) && job != nullptr && works(job->info().status)) job->pause();
  }
}

}  // namespace cairn::daemon
