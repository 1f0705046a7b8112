// What a journal says at the start of a daemon, and what becomes of it.
#include <utility>

#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/journal/job_again.h"
#include "daemon/journal/job_journal.h"
#include "job/live/lost.h"

namespace cairn::daemon {

using live::JobPtr;

Task<void> JobJournal::open(bool from_other) {
  const auto turn = co_await turn_.lock();
  const std::optional<std::string> text =
      co_await run_blocking([&] { return file_.read(kMostJournalBytes); });
  holding_ = false;
  resumed_ = from_other;
  if (from_other || !text) co_return;
  if (text->empty()) {
    daemon_.context().warn("'" + path() +
                           "' is empty: the jobs of the last daemon, if it had any, were not kept");
    co_return;
  }
  Journal journal;
  try {
    journal = parse_journal(*text);
  } catch (Error& error) {
    file_.release();
    const bool foreign = error.kind() == ErrorKind::kInvalid;
    error.context("The file of jobs '" + path() + (foreign ? "' cannot be used" : "' is damaged"));
    if (foreign)
      error.hint("Name another file.", "state=FILE");
    else
      error.hint("Move it away: the jobs in it have to be begun again.");
    throw;
  }
  const auto look = [&] {
    for (const JournalJob& job : journal.jobs) {
      found_[job.id] = look_at_files(job, journal.seen);
    }
  };
  co_await run_blocking(look);
  waiting_ = std::move(journal.jobs);
}

void JobJournal::start_lost(live::JobType type, const std::string& id, const std::string& reason) {
  daemon_.context().warn("job '" + id + "': " + reason);
  try {
    auto job = std::make_shared<live::LostJob>(type, id, reason);
    daemon_.jobs().add(job);
    daemon_.jobs().start(job);
  } catch (const Error& error) {
    daemon_.context().warn("job '" + id + "': " + error.message());
  }
}

// The next job, with those that conclude together with it.
std::vector<JournalJob> JobJournal::take_next() {
  const std::string group = waiting_.front().group;
  std::vector<JournalJob> jobs, others;
  for (JournalJob& job : waiting_) {
    const bool next = jobs.empty() || (!group.empty() && job.group == group);
    (next ? jobs : others).push_back(std::move(job));
  }
  waiting_ = std::move(others);
  return jobs;
}

// All of them, or none.
Task<void> JobJournal::begin_again(const std::vector<JournalJob>& jobs) {
  std::vector<JobStart> starts;
  for (const JournalJob& job : jobs) {
    try {
      JobStart start = co_await restore_job(daemon_, job, found_[job.id]);
      starts.push_back(std::move(start));
    } catch (Error& error) {
      if (jobs.size() > 1) error.context("job '" + job.id + "'");
      throw;
    }
  }
  co_await begin_jobs(daemon_, std::move(starts));
  co_await note_new();
  for (const JournalJob& job : jobs) {
    const JobPtr begun = daemon_.jobs().find(job.id);
    if (!job.paused || begun == nullptr) continue;
    try {
      begun->pause();
    } catch (const Error&) {
      // It has ended already.
    }
  }
}

Task<void> JobJournal::resume() {
  while (!waiting_.empty()) {
    const std::vector<JournalJob> jobs = take_next();
    std::string failure;
    for (const JournalJob& job : jobs)
      if (failure.empty() && !job.lost.empty()) failure = job.lost;
    if (failure.empty()) {
      try {
        co_await begin_again(jobs);
      } catch (const Error& error) {
        failure = "It cannot be continued: " + error.message();
      }
    }
    for (const JournalJob& job : jobs) {
      if (!failure.empty())
        start_lost(job.type, job.id, job.lost.empty() ? failure : job.lost);
      else if (daemon_.options().log)
        daemon_.options().log->write("info", "job-continued", event_members("job", job.id));
    }
  }
  {
    const auto turn = co_await turn_.lock();
    resumed_ = true;
  }
  co_await write();
}

}  // namespace cairn::daemon
