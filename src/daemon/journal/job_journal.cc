#include "daemon/journal/job_journal.h"

#include <algorithm>
#include <chrono>

#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "job/live/disk_job.h"

namespace cairn::daemon {
namespace {

using live::JobPtr;
using live::JobStatus;
using namespace std::chrono_literals;

constexpr auto kPeriod = 1s;
// What is appended before the whole is written again; more than a second brings ends it.
constexpr size_t kAppendedBytes = 1 << 20;
constexpr size_t kMostAppendedBytes = 16 << 20;
constexpr uint64_t kMostWrittenBytes = 1 << 20;

constexpr const char* kNotContinued =
    "The daemon ended before the job did, and a job of this kind is not continued: begin it again";
// Whether it was completed, and the image used, nobody knows: to make it again might destroy it.
constexpr const char* kCreateNotContinued =
    "The daemon ended while the image was made, which may be incomplete: where nothing uses it "
    "yet, begin the job again";
constexpr const char* kAmendNotContinued =
    "The daemon ended while the image was changed: look at its options or key slots, and begin the "
    "job again where they are not as they should be";
constexpr const char* kOthersFailed =
    "A job that concludes together with it failed or was cancelled: begin them again";

const char* not_continued(live::JobType type) {
  return type == live::JobType::kCreate  ? kCreateNotContinued
         : type == live::JobType::kAmend ? kAmendNotContinued
                                         : kNotContinued;
}

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

// A point in time is lost with what the process knew of it.
bool goes_on(const JobPtr& job) {
  return job->type() != live::JobType::kBackup || progress_of(job) != nullptr;
}

// What was written since JOB began, marked in so large pieces that it is worth keeping; null: it
// has no bitmap.
std::shared_ptr<DirtyBitmap> written_since(const JobPtr& job) {
  const auto* disk_job = dynamic_cast<const live::DiskJob*>(job.get());
  const DirtyBitmapPtr written = disk_job == nullptr ? nullptr : disk_job->written_since();
  if (written == nullptr) return nullptr;
  uint64_t granularity = written->granularity();
  while (granularity < DirtyBitmap::kMaxGranularity &&
         DirtyBitmap::serialized_bytes(written->length(), granularity) > kMostWrittenBytes)
    granularity *= 2;
  auto kept = std::make_shared<DirtyBitmap>("", written->length(), granularity);
  kept->merge(*written);
  return kept;
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

// turn_ is held.
JobJournal::Known* JobJournal::known(const std::string& id) {
  const auto found = known_.find(id);
  return found == known_.end() ? nullptr : &found->second;
}

// turn_ is held.
JournalJob JobJournal::capture_job(const JobPtr& job, const live::JobInfo& info) {
  const Known* one = known(job->id());
  JournalJob record;
  if (one != nullptr && one->job == job && one->ended.empty() && goes_on(job) && !info.undone) {
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
                : info.undone && one != nullptr && !one->record.group.empty()
                    ? kOthersFailed
                    : not_continued(job->type());
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
    const Known* one = known(job->id());
    const bool over = has_ended(info.status) || (one != nullptr && one->job == job && one->over);
    if (over && (!info.error || info.auto_dismiss)) continue;
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
    for (auto& [id, one] : known_) one.in_file = false;
    for (const JournalJob& job : journal.jobs)
      if (Known* one = known(job.id)) one->in_file = job.lost.empty();
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
  if (one == nullptr || !one->ended.empty() || !one->in_file) co_return true;
  changed_since_ = true;
  std::string line = writer_.change(id, open, runs);
  const bool right = co_await append(std::move(line));
  co_return right;
}

// turn_ is held. Lines that say that the jobs which conclude together with ONE are not continued,
// where it ends because one of them failed: before that it has ended, so that they do not go on
// alone.
std::string JobJournal::end_of_others(const Known& one) {
  std::string lines;
  if (one.record.group.empty() || !one.job->info().undone) return lines;
  for (auto& [id, other] : known_) {
    if (&other == &one || other.record.group != one.record.group || !other.ended.empty()) continue;
    other.ended = kOthersFailed;
    if (other.in_file) lines += writer_.end(id, other.ended);
  }
  return lines;
}

Task<bool> JobJournal::end(std::string id, bool switched) {
  const auto turn = co_await turn_.lock();
  Known* one = known(id);
  if (one == nullptr) co_return true;
  if (holding_ && !switched) co_return true;
  const bool again = !one->ended.empty();
  if (again && !stale_) co_return true;
  one->ended = kNotContinued;
  one->over = !switched;
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
  // In this order: each line has the checksum of those before it.
  std::string line = end_of_others(*one);
  if (one->in_file) line += writer_.end(id, why);
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
  one.record.group = recipe->group;
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
  held_jobs_.clear();
  for (const JobPtr& job : daemon_.jobs().list())
    if (progress_of(job) != nullptr) held_jobs_[job->id()] = job;
}

Task<void> JobJournal::release() {
  const auto turn = co_await turn_.lock();
  if (holding_) {
    held_.seen = now();
    // What was copied, and given back in the source, until the jobs ended.
    for (JournalJob& job : held_.jobs) {
      const auto found = held_jobs_.find(job.id);
      if (found == held_jobs_.end() || job.open == nullptr) continue;
      job.open = progress_of(found->second)->open();
      job.written = written_since(found->second);
    }
    try {
      const std::string text = writer_.whole(held_);
      co_await run_blocking([&] { file_.replace(text); });
    } catch (const Error& error) {
      // What the file has, if anything, is right as well.
      daemon_.context().warn(error.message());
    }
  }
  known_.clear();
  held_jobs_.clear();
  file_.release();
}

}  // namespace cairn::daemon
