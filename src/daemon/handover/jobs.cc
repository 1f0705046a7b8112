#include "daemon/handover/jobs.h"

#include <algorithm>

#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/fields.h"
#include "daemon/job_starts.h"
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
         status == JobStatus::kStandby || status == JobStatus::kWaiting;
}

// A job that is to be begun again.
struct Suspended {
  JobPtr job;
  Value fields;
};

Task<Value> describe(Daemon& daemon, JobPtr job) {
  const JobRecipes::Recipe recipe = *daemon.job_recipes().find(job);
  const live::JobInfo info = job->info();
  Value one = Value::object();
  one.set("command", recipe.command);
  one.set("arguments", recipe.arguments);
  one.set("speed", info.speed);
  one.set("paused", info.status == JobStatus::kPaused || info.status == JobStatus::kStandby);
  if (!recipe.group.empty()) one.set("group", recipe.group);
  // Nodes that only the job has go with it.
  JournalJob disks;
  disks.id = job->id();
  const auto change = co_await daemon.graph().change();
  capture_disks(daemon.graph(), disks);
  one.set("recipes", Value(Value::Array(disks.recipes)));
  co_return one;
}

// Those of JOBS, from the first on, that end together, or the first alone; they are taken out.
std::vector<JobPtr> take_group(Daemon& daemon, std::vector<JobPtr>& jobs) {
  const auto group_of = [&](const JobPtr& job) {
    const JobRecipes::Recipe* recipe = daemon.job_recipes().find(job);
    return recipe == nullptr ? std::string() : recipe->group;
  };
  const JobPtr first = jobs.front();
  const std::string group = group_of(first);
  std::vector<JobPtr> taken, others;
  for (const JobPtr& job : jobs) {
    const bool next = job == first || (!group.empty() && group_of(job) == group);
    (next ? taken : others).push_back(job);
  }
  jobs = std::move(others);
  return taken;
}

// Ends JOBS, of which one that is cancelled makes the others end; adds what is left of them.
Task<void> suspend_group(Daemon& daemon, std::vector<JobPtr> jobs, Value& list) {
  std::vector<Suspended> suspended;
  for (const JobPtr& job : jobs) {
    // One that has just ended by itself needs nothing any more.
    if (daemon.job_recipes().find(job) == nullptr || !works(job->info().status)) continue;
    Value fields = co_await describe(daemon, job);
    suspended.push_back({.job = job, .fields = std::move(fields)});
  }
  for (auto& [job, fields] : suspended) {
    try {
      co_await job->cancel(true);
    } catch (const Error&) {
      // It has ended already, with the others.
    }
    co_await job->concluded();
    const bool by_itself = !job->info().error;
    if (daemon.jobs().find(job->id()) == job) job->dismiss();
    if (by_itself) continue;
    const auto* disk_job = dynamic_cast<const live::DiskJob*>(job.get());
    if (disk_job != nullptr) {
      set_bitmap(fields, "remaining", disk_job->remaining());
      set_bitmap(fields, "written-since", disk_job->written_since());
    }
    list.push_back(std::move(fields));
  }
}

// What begins the job again that FIELDS describe. WHOLE: with all that there was to do.
Task<JobStart> restore(Daemon& daemon, Value fields, bool whole) {
  JournalJob disks;
  disks.arguments = member_of(fields, "arguments");
  // Other versions have none.
  if (fields.find("recipes") != nullptr) disks.recipes = elements_of(fields, "recipes");
  {
    const auto change = co_await daemon.graph().change();
    disks = co_await restore_disks(daemon.graph(), disks);
  }
  JobStart start;
  start.command = text_of(fields, "command");
  start.arguments = disks.arguments;
  start.arguments.set("speed", member_of(fields, "speed"));
  if (!whole)
    start.left = {.remaining = bitmap_of(fields, "remaining"),
                  .written_since = bitmap_of(fields, "written-since")};
  co_return start;
}

Task<void> resume_group(Daemon& daemon, std::vector<Value> jobs, bool whole) {
  std::vector<JobStart> starts;
  for (const Value& one : jobs) {
    try {
      JobStart start = co_await restore(daemon, one, whole);
      starts.push_back(std::move(start));
    } catch (Error& error) {
      throw error.context("job '" + text_of(member_of(one, "arguments"), "job-id") + "'");
    }
  }
  co_await begin_jobs(daemon, std::move(starts));
  if (daemon.journal() != nullptr) co_await daemon.journal()->note_new();
  for (const Value& one : jobs) {
    const JobPtr job = daemon.jobs().find(text_of(member_of(one, "arguments"), "job-id"));
    const bool paused = flag_of(one, "paused", false);
    if (paused && job != nullptr && works(job->info().status)) job->pause();
  }
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
  std::vector<JobPtr> jobs = jobs_of(daemon);
  while (!jobs.empty()) {
    std::vector<JobPtr> group = take_group(daemon, jobs);
    co_await suspend_group(daemon, std::move(group), list);
  }
  co_return list;
}

Task<void> resume_jobs(Daemon& daemon, Value jobs, bool whole, Complaint complain) {
  const auto* list = jobs.get_if<Value::Array>();
  if (list == nullptr) co_return;
  for (size_t i = 0; i < list->size();) {
    const std::string group = text_of((*list)[i], "group");
    // Those of a group follow each other.
    std::vector<Value> together{(*list)[i++]};
    while (!group.empty() && i < list->size() && text_of((*list)[i], "group") == group)
      together.push_back((*list)[i++]);
    co_await attempt(resume_group(daemon, std::move(together), whole), complain);
  }
}

}  // namespace cairn::daemon
