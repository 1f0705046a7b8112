#include "daemon/journal/job_journal.h"

#include <algorithm>
#include <chrono>

#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/journal/job_disks.h"
#include "job/live/disk_job.h"
#include "job/live/lost.h"

namespace cairn::daemon {
namespace {

using live::JobPtr;
using live::JobStatus;
using namespace std::chrono_literals;

constexpr auto kPeriod = 1s;
// What is appended before the whole is written again; more than a second brings ends it.
constexpr size_t kAppendedBytes = 1 << 20;
constexpr size_t kMostAppendedBytes = 16 << 20;

constexpr const char* kNotContinued =
    "The daemon ended before the job did, and a job of this kind is not continued: begin it again";
// What a bitmap missed in a crash nobody knows, and others have nothing of it afterwards.
constexpr const char* kBackupNotContinued =
    "The daemon ended before the job did, and a backup by a bitmap, or one that concludes together "
    "with others, is not continued: begin it again, but as a full one, with a new bitmap, where "
    "its bitmap is inconsistent, as after a crash, or gone";

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool has_ended(JobStatus status) {
  return status == JobStatus::kAborting || status == JobStatus::kConcluded ||
         status == JobStatus::kNull;
}

std::shared_ptr<live::JobProgress> progress_of(const JobPtr& job) {
  const auto* disk_job = dynamic_cast<const live::DiskJob*>(job.get());
  return disk_job == nullptr ? nullptr : disk_job->progress();
}

// A point in time is lost with what the process knew of it, and a bitmap with what it recorded.
bool goes_on(const JournalJob& record, const JobPtr& job) {
  if (record.arguments.find("bitmap") != nullptr) return false;
  return job->type() != live::JobType::kBackup || progress_of(job) != nullptr;
}

bool any_goes_on(const Journal& journal) {
  return std::any_of(journal.jobs.begin(), journal.jobs.end(),
                     [](const JournalJob& job) { return job.lost.empty(); });
}

std::string jobs_of(const Journal& journal) {
  JournalWriter writer;
  Journal timeless = journal;
  timeless.seen = 0;
  return writer.whole(timeless);
}

}  // namespace

JobJournal::JobJournal(Daemon& daemon, std::string path)
    : daemon_(daemon),
      file_(std::move(path), {.noun = "file of jobs",
                              .in_use = "Another daemon keeps its jobs there.",
                              .elsewhere = "Name a file elsewhere.",
                              .option = "state=FILE"}) {}

// --- reading ---

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
      const DisksFound found = look_at_files(job, journal.seen);
      if (!found.other.empty()) others_[job.id] = found.other;
      if (!found.changed.empty()) changed_[job.id] = found.changed;
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

// Decides what becomes of a job whose files were changed by others.
Task<void> JobJournal::begin_again(JournalJob job) {
  if (!JobRecipes::concerns(job.command)) invalid("'" + job.command + "' begins no job");
  if (text_of(job.arguments, "job-id") != job.id) invalid("its arguments are those of another job");
  if (job.type == live::JobType::kBackup && job.open == nullptr)
    invalid("what it has copied is not known");
  if (const auto other = others_.find(job.id); other != others_.end()) invalid(other->second);
  if (const auto changed = changed_.find(job.id); changed != changed_.end()) {
    const bool all = text_of(job.arguments, "sync") != "none";
    if (job.type == live::JobType::kBackup || (job.type == live::JobType::kMirror && !all))
      invalid(changed->second);
    if (job.open != nullptr)
      daemon_.context().warn("job '" + job.id + "' begins from the start: " + changed->second);
    job.open = nullptr;
  }
  {
    const auto change = co_await daemon_.graph().change();
    job = co_await restore_disks(daemon_.graph(), job);
    check_disks(daemon_.graph(), job);
  }
  if (job.open != nullptr)
    daemon_.job_recipes().set_left(job.id, {.remaining = job.open, .written_since = nullptr});
  Value arguments = job.arguments;
  arguments.set("speed", job.speed);
  co_await finally(
      [&]() -> Task<void> { co_await find_command(job.command)->run(daemon_, arguments); },
      [&]() -> Task<void> {
        // No other job of this name is to begin with it.
        daemon_.job_recipes().take_left(job.id);
        co_return;
      });
  const JobPtr begun = daemon_.jobs().find(job.id);
  daemon_.job_recipes().note(job.command, arguments, begun);
  co_await note_new();
  if (!job.paused || begun == nullptr) co_return;
  try {
    begun->pause();
  } catch (const Error&) {
    // It has ended already.
  }
}

Task<void> JobJournal::resume() {
  while (!waiting_.empty()) {
    JournalJob job = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    std::string failure = job.lost;
    if (failure.empty()) {
      try {
        co_await begin_again(job);
        if (daemon_.options().log)
          daemon_.options().log->write("info", "job-continued", event_members("job", job.id));
      } catch (const Error& error) {
        failure = "It cannot be continued: " + error.message();
      }
    }
    if (!failure.empty()) start_lost(job.type, job.id, failure);
  }
  {
    const auto turn = co_await turn_.lock();
    resumed_ = true;
  }
  co_await write();
}

// --- writing ---

// turn_ is held.
JobJournal::Known* JobJournal::known(const std::string& id) {
  const auto found = known_.find(id);
  return found == known_.end() ? nullptr : &found->second;
}

// turn_ is held.
JournalJob JobJournal::capture_job(const JobPtr& job, const live::JobInfo& info) {
  const Known* one = known(job->id());
  JournalJob record;
  if (one != nullptr && one->job == job && one->ended.empty() && goes_on(one->record, job)) {
    record = one->record;
    record.speed = info.speed;
    record.paused = info.stays_paused;
    const auto progress = progress_of(job);
    if (progress != nullptr && progress->known()) record.open = progress->open();
    return record;
  }
  record.id = job->id();
  record.type = job->type();
  record.lost = info.error                                                 ? *info.error
                : one != nullptr && one->job == job && !one->ended.empty() ? one->ended
                : job->type() == live::JobType::kBackup                    ? kBackupNotContinued
                                                                           : kNotContinued;
  return record;
}

// turn_ is held. Oldest first: a job may work above the filter of another one.
Journal JobJournal::capture() {
  Journal journal;
  journal.seen = now();
  std::vector<JobPtr> jobs = daemon_.jobs().list();
  std::reverse(jobs.begin(), jobs.end());
  for (const JobPtr& job : jobs) {
    const live::JobInfo info = job->info();
    // Of what has ended only failures that nobody has seen yet are worth keeping.
    if (has_ended(info.status) && (!info.error || info.auto_dismiss)) continue;
    journal.jobs.push_back(capture_job(job, info));
  }
  std::erase_if(known_, [&](const auto& one) {
    return std::find(jobs.begin(), jobs.end(), one.second.job) == jobs.end();
  });
  journal.jobs.insert(journal.jobs.end(), waiting_.begin(), waiting_.end());
  return journal;
}

// turn_ is held.
bool JobJournal::is_in_file(const Journal& journal) const {
  return !down_ && !changed_since_ && appended_ <= kAppendedBytes && jobs_of(journal) == written_;
}

// turn_ is held. Also of jobs at which nothing happens, and while the nodes are being closed, which
// may take long: what the daemon wrote in the moment before it was killed would be taken for that
// of somebody else.
Task<void> JobJournal::write_time() {
  if (down_ || !file_.is_open()) co_return;
  std::string line = writer_.time(now());
  co_await append(std::move(line));
}

// turn_ is held.
Task<void> JobJournal::give_up(std::string reason) {
  if (!down_)
    daemon_.context().warn("The jobs are not kept: " + reason + ". It is tried again each second");
  down_ = true;
  const auto empty = [&]() -> bool {
    try {
      if (file_.is_open()) file_.clear();
      return true;
    } catch (const Error&) {
    }
    try {
      file_.remove();
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  const bool emptied = co_await run_blocking(empty);
  if (!emptied && !stale_)
    daemon_.context().warn("'" + path() +
                           "' can be neither written nor removed: remove it before a daemon is "
                           "started with it, which would continue jobs wrongly");
  stale_ = !emptied;
}

Task<void> JobJournal::write() {
  const auto turn = co_await turn_.lock();
  if (holding_) {
    if (any_goes_on(held_)) co_await write_time();
    co_return;
  }
  std::string failure;
  try {
    const Journal journal = capture();
    if (is_in_file(journal)) {
      if (any_goes_on(journal)) co_await write_time();
      co_return;
    }
    const std::string text = writer_.whole(journal);
    co_await run_blocking([&] { file_.replace(text); });
    written_ = jobs_of(journal);
    changed_since_ = false;
    appended_ = 0;
  } catch (const Error& error) {
    failure = error.message();
  }
  if (!failure.empty()) {
    co_await give_up(failure);
    co_return;
  }
  if (down_) daemon_.options().report("The jobs are kept again in '" + path() + "'");
  down_ = stale_ = false;
}

// turn_ is held.
Task<bool> JobJournal::append(std::string line) {
  if (down_) co_return !stale_;
  std::string failure;
  try {
    if (appended_ + line.size() > kMostAppendedBytes)
      throw Error(ErrorKind::kTooLarge, "'" + path() + "' gets too long");
    co_await run_blocking([&] { file_.append(line); });
    appended_ += line.size();
  } catch (const Error& error) {
    failure = error.message();
  }
  if (!failure.empty()) co_await give_up(failure);
  co_return !stale_;
}

Task<bool> JobJournal::record(std::string id, bool open, live::Runs runs) {
  const auto turn = co_await turn_.lock();
  const Known* one = known(id);
  // Until it is in the file nothing is said of it there.
  if (one == nullptr || !one->ended.empty()) co_return true;
  changed_since_ = true;
  std::string line = writer_.change(id, open, runs);
  const bool right = co_await append(std::move(line));
  co_return right;
}

Task<bool> JobJournal::end(std::string id, bool switched) {
  const auto turn = co_await turn_.lock();
  Known* one = known(id);
  if (one == nullptr) co_return true;
  if (holding_ && !switched) co_return true;
  const bool again = !one->ended.empty();
  if (again && !stale_) co_return true;
  one->ended = kNotContinued;
  if (switched)
    one->ended =
        "It was completed, or about to be, when the daemon ended: its target has all that the disk "
        "had";
  if (holding_)
    for (JournalJob& job : held_.jobs)
      if (job.id == id) job.lost = one->ended;
  std::string why;
  if (switched) why = one->ended;
  changed_since_ = true;
  std::string line = writer_.end(id, why);
  const bool right = co_await append(std::move(line));
  co_return right;
}

// --- the life of a daemon ---

// True where JOB was not known.
Task<bool> JobJournal::note(JobPtr job) {
  const std::string& id = job->id();
  const JobRecipes::Recipe* recipe = daemon_.job_recipes().find(job);
  if (recipe == nullptr) co_return false;
  Known one;
  one.job = job;
  one.record.id = id;
  one.record.type = job->type();
  one.record.command = recipe->command;
  one.record.arguments = recipe->arguments;
  {
    const auto turn = co_await turn_.lock();
    const Known* before = known(id);
    if (before != nullptr && before->job == job) co_return false;
  }
  {
    const auto change = co_await daemon_.graph().change();
    capture_disks(daemon_.graph(), one.record);
  }
  {
    const auto turn = co_await turn_.lock();
    known_[id] = std::move(one);
  }
  co_return true;
}

Task<void> JobJournal::note_new() {
  bool any = false;
  for (const JobPtr& job : daemon_.jobs().list()) {
    const bool noted = co_await note(job);
    any = any || noted;
  }
  if (any) co_await write();
}

// What cannot be flushed stays open.
Task<void> JobJournal::settle_all() {
  const auto change = co_await daemon_.graph().change();
  for (const JobPtr& job : daemon_.jobs().list()) {
    const auto progress = progress_of(job);
    if (progress == nullptr) continue;
    try {
      co_await progress->settle();
    } catch (const Error&) {
      continue;
    }
  }
}

Task<void> JobJournal::settle_often() {
  while (true) {
    co_await settling_nap_.sleep_for(kPeriod);
    if (settling_nap_.woken()) break;
    if (!holding_) co_await settle_all();
  }
}

// Flushing, and the changes of the graph for which it waits, may take longer than the time may be
// late.
Task<void> JobJournal::serve() {
  TaskGroup settling;
  settling.spawn(settle_often());
  while (true) {
    co_await nap_.sleep_for(kPeriod);
    if (nap_.woken()) break;
    co_await write();
  }
  co_await settling.join();
}

Task<void> JobJournal::stop() {
  co_await nap_.wake();
  co_await settling_nap_.wake();
}

Task<void> JobJournal::hold() {
  if (holding_ || !resumed_) co_return;
  co_await settle_all();
  co_await write();
  const auto turn = co_await turn_.lock();
  holding_ = true;
  held_ = capture();
  held_progress_.clear();
  for (const JobPtr& job : daemon_.jobs().list())
    if (auto progress = progress_of(job)) held_progress_[job->id()] = std::move(progress);
}

Task<void> JobJournal::release() {
  const auto turn = co_await turn_.lock();
  if (holding_) {
    held_.seen = now();
    // What was copied, and given back in the source, until the jobs ended.
    for (JournalJob& job : held_.jobs)
      if (const auto found = held_progress_.find(job.id);
          found != held_progress_.end() && job.open != nullptr)
        job.open = found->second->open();
    try {
      const std::string text = writer_.whole(held_);
      co_await run_blocking([&] { file_.replace(text); });
    } catch (const Error& error) {
      // What the file has, if anything, is right as well.
      daemon_.context().warn(error.message());
    }
  }
  known_.clear();
  held_progress_.clear();
  file_.release();
}

}  // namespace cairn::daemon
