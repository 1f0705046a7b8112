#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "daemon/qmp_error.h"
#include "job/live/live.h"
#include "job/live/mirror.h"

// What is asked of jobs that are there.
namespace cairn::daemon {
namespace {

using live::JobInfo;
using live::JobPtr;

JobPtr job_of(Daemon& daemon, const Value& arguments) {
  return daemon.jobs().get(text_of(arguments, "id"));
}

// The commands of block jobs do not know the others.
JobPtr block_job_of(Daemon& daemon, const std::string& id) {
  JobPtr job = daemon.jobs().find(id);
  if (job == nullptr || !job->is_block_job())
    throw QmpError::not_active("Block job '" + id + "' not found");
  return job;
}

JobPtr device_job(Daemon& daemon, const Value& arguments) {
  return block_job_of(daemon, text_of(arguments, "device"));
}

JobPtr id_job(Daemon& daemon, const Value& arguments) {
  return block_job_of(daemon, text_of(arguments, "id"));
}

using Finder = JobPtr (*)(Daemon& daemon, const Value& arguments);

template <Finder kFind, void (live::Job::*kVerb)()>
Task<Value> ask_job(Daemon& daemon, Value arguments) {
  (*kFind(daemon, arguments).*kVerb)();
  co_return Value::object();
}

template <Finder kFind>
Task<Value> finalize_job(Daemon& daemon, Value arguments) {
  const JobPtr job = kFind(daemon, arguments);
  co_await job->finalize();
  co_return Value::object();
}

Task<Value> job_cancel(Daemon& daemon, Value arguments) {
  const JobPtr job = job_of(daemon, arguments);
  co_await job->cancel(true);
  co_return Value::object();
}

Task<Value> block_job_cancel(Daemon& daemon, Value arguments) {
  const JobPtr job = device_job(daemon, arguments);
  co_await job->cancel(flag_of(arguments, "force", false));
  co_return Value::object();
}

Task<Value> set_job_speed(Daemon& daemon, Value arguments) {
  device_job(daemon, arguments)->set_speed(number_of(arguments, "speed", 0));
  co_return Value::object();
}

Task<Value> change_job(Daemon& daemon, Value arguments) {
  const JobPtr job = id_job(daemon, arguments);
  job->check_verb(live::JobVerb::kChange);
  auto* mirror = dynamic_cast<live::MirrorJob*>(job.get());
  if (mirror == nullptr || job->type() != live::JobType::kMirror)
    invalid("Job type does not support change");
  if (text_of(arguments, "copy-mode") != "write-blocking") {
    if (mirror->write_blocking()) invalid("Change to copy mode 'background' is not implemented");
  } else {
    mirror->set_write_blocking();
  }
  co_return Value::object();
}

Task<Value> query_jobs(Daemon& daemon, Value) {
  Value list = Value::array();
  for (const JobPtr& job : daemon.jobs().list()) {
    const JobInfo info = job->info();
    Value one = Value::object();
    one.set("current-progress", info.done);
    one.set("status", to_string(info.status));
    one.set("total-progress", info.total);
    one.set("type", to_string(info.type));
    one.set("id", info.id);
    if (info.error) one.set("error", *info.error);
    list.push_back(std::move(one));
  }
  co_return list;
}

Task<Value> query_block_jobs(Daemon& daemon, Value) {
  Value list = Value::array();
  for (const JobPtr& job : daemon.jobs().list()) {
    if (!job->is_block_job()) continue;
    const JobInfo info = job->info();
    Value one = Value::object();
    one.set("auto-finalize", info.auto_finalize);
    one.set("io-status", to_string(info.io_status));
    one.set("device", info.id);
    one.set("auto-dismiss", info.auto_dismiss);
    one.set("busy", info.busy);
    one.set("len", info.total);
    one.set("offset", info.done);
    one.set("status", to_string(info.status));
    one.set("paused", info.paused);
    one.set("speed", info.speed);
    one.set("ready", info.ready);
    one.set("type", to_string(info.type));
    if (info.error) one.set("error", *info.error);
    if (info.actively_synced) one.set("actively-synced", *info.actively_synced);
    list.push_back(std::move(one));
  }
  co_return list;
}

constexpr Command kJobCommands[] = {
    {"job-pause", ask_job<job_of, &live::Job::pause>},
    {"job-resume", ask_job<job_of, &live::Job::resume>},
    {"job-complete", ask_job<job_of, &live::Job::complete>},
    {"job-dismiss", ask_job<job_of, &live::Job::dismiss>},
    {"job-finalize", finalize_job<job_of>},
    {"job-cancel", job_cancel},
    {"block-job-pause", ask_job<device_job, &live::Job::pause>},
    {"block-job-resume", ask_job<device_job, &live::Job::resume>},
    {"block-job-complete", ask_job<device_job, &live::Job::complete>},
    {"block-job-dismiss", ask_job<id_job, &live::Job::dismiss>},
    {"block-job-finalize", finalize_job<id_job>},
    {"block-job-cancel", block_job_cancel},
    {"block-job-set-speed", set_job_speed},
    {"block-job-change", change_job},
    {"query-jobs", query_jobs},
    {"query-block-jobs", query_block_jobs},
};

}  // namespace

std::span<const Command> job_commands() { return kJobCommands; }

}  // namespace cairn::daemon
