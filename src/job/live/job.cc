#include "job/live/job.h"

#include <algorithm>
#include <utility>

#include "async/runtime.h"
#include "job/live/jobs.h"

namespace cairn::live {
namespace {

using Clock = std::chrono::steady_clock;

// How long something that was asked waits at most for a job that sleeps.
constexpr auto kSleepSlice = std::chrono::milliseconds(20);
constexpr auto kLongestRetry = std::chrono::milliseconds(1000);
constexpr auto kFirstRetry = std::chrono::milliseconds(10);
constexpr auto kErrorPeriod = std::chrono::seconds(1);

ErrorAction action_for(OnError policy, const Error& error) {
  switch (policy) {
    case OnError::kReport:
      return ErrorAction::kReport;
    case OnError::kIgnore:
      return ErrorAction::kIgnore;
    case OnError::kStop:
      return ErrorAction::kStop;
    case OnError::kEnospc:
    case OnError::kAuto:
      break;
  }
  return error.error_number() == ENOSPC ? ErrorAction::kStop : ErrorAction::kReport;
}

}  // namespace

Job::Job(JobType type, JobOptions options)
    : type_(type), options_(std::move(options)), speed_shown_(options_.speed) {
  if (options_.speed > 0) speed_.set(static_cast<uint64_t>(options_.speed));
}

JobInfo Job::info() {
  refresh_progress();
  const auto synced = actively_synced();
  const std::lock_guard lock(*mutex_);
  JobInfo result;
  result.id = id();
  result.type = type_;
  result.status = status_;
  result.done = done();
  result.total = total();
  result.speed = speed_shown_;
  result.ready = status_ == JobStatus::kReady || status_ == JobStatus::kStandby;
  result.busy =
      (status_ == JobStatus::kRunning || status_ == JobStatus::kReady) && parked_ < parts_;
  result.paused = pauses_ > 0 || status_ == JobStatus::kPending;
  result.stays_paused = user_paused_;
  result.io_status = io_status_;
  result.auto_finalize = options_.auto_finalize;
  result.auto_dismiss = options_.auto_dismiss;
  result.undone = transaction_ != nullptr && transaction_->aborting_;
  result.error = error_;
  result.actively_synced = synced;
  return result;
}

// --- what people ask ---

void Job::check_verb_locked(JobVerb verb) const {
  if (accepts(status_, verb)) return;
  invalid("Job '" + id() + "' in state '" + std::string(to_string(status_)) +
          "' cannot accept command verb '" + std::string(to_string(verb)) + "'");
}

void Job::check_verb(JobVerb verb) const {
  const std::lock_guard lock(*mutex_);
  check_verb_locked(verb);
}

void Job::pause() {
  const std::lock_guard lock(*mutex_);
  check_verb_locked(JobVerb::kPause);
  if (user_paused_) invalid("Job is already paused");
  user_paused_ = true;
  ++pauses_;
  settle_pause();
}

void Job::resume() {
  const std::lock_guard lock(*mutex_);
  if (!user_paused_) invalid("Can't resume a job that was not paused");
  check_verb_locked(JobVerb::kResume);
  user_paused_ = false;
  --pauses_;
  io_status_ = IoStatus::kOk;
  release_pause();
}

// Continues when nobody wants a pause any more.
void Job::release_pause() {
  if (pauses_ != 0) return;
  if (status_ == JobStatus::kPaused) set_status(JobStatus::kRunning);
  if (status_ == JobStatus::kStandby) set_status(JobStatus::kReady);
  changed_.notify();
}

// Is paused when it is to be and all of its coroutines wait.
void Job::settle_pause() {
  if (pauses_ == 0 || parts_ <= 0 || parked_ < parts_ || stop_.requested()) return;
  if (status_ == JobStatus::kRunning) set_status(JobStatus::kPaused);
  if (status_ == JobStatus::kReady) set_status(JobStatus::kStandby);
}

// Without force only what is ready can end well.
Task<void> Job::cancel(bool force) {
  bool soon = false;
  {
    const std::lock_guard lock(*mutex_);
    check_verb_locked(JobVerb::kCancel);
    if (user_paused_ && !force)
      invalid("The block job for device '" + id() + "' is currently paused");
    if (!force && status_ == JobStatus::kReady) {
      ending_softly_.store(true);
      changed_.notify();
      co_return;
    }
    soon = ended_;
    request_cancel();
  }
  if (soon) co_await concluded();
}

void Job::request_cancel() {
  stop_.request();
  if (user_paused_) --pauses_;
  user_paused_ = false;
  if (status_ == JobStatus::kPaused) set_status(JobStatus::kRunning);
  if (status_ == JobStatus::kStandby) set_status(JobStatus::kReady);
  changed_.notify();
  // Once the changes are being made it is too late.
  if (ended_ && transaction_ && !transaction_->committing_) Jobs::start_abort(*transaction_, *this);
}

void Job::complete() {
  const std::lock_guard lock(*mutex_);
  check_verb_locked(JobVerb::kComplete);
  if (!can_complete() || stop_.requested() || ending_softly_)
    invalid("The active block job '" + id() + "' cannot be completed");
  completing_.store(true);
  changed_.notify();
}

Task<void> Job::finalize() {
  {
    const std::lock_guard lock(*mutex_);
    check_verb_locked(JobVerb::kFinalize);
    transaction_->finalizing_ = true;
    transaction_->changed_.notify();
  }
  co_await concluded();
}

void Job::set_speed(int64_t bytes_per_second) {
  const std::lock_guard lock(*mutex_);
  check_verb_locked(JobVerb::kSetSpeed);
  if (bytes_per_second < 0) invalid("Parameter 'speed' expects a non-negative value");
  speed_shown_ = bytes_per_second;
  speed_.set(static_cast<uint64_t>(bytes_per_second));
  changed_.notify();
}

Task<void> Job::concluded() {
  while (true) {
    const uint64_t seen = changed_.count();
    {
      const std::lock_guard lock(*mutex_);
      if (status_ == JobStatus::kConcluded || status_ == JobStatus::kNull) co_return;
    }
    co_await changed_.next(seen);
  }
}

bool Job::ended() const {
  const std::lock_guard lock(*mutex_);
  return ended_;
}

// --- for the work ---

Task<void> Job::hold_back() {
  {
    const std::lock_guard lock(*mutex_);
    ++pauses_;
    settle_pause();
  }
  while (true) {
    const uint64_t seen = rests_.count();
    {
      const std::lock_guard lock(*mutex_);
      const bool begun = status_ != JobStatus::kUndefined && status_ != JobStatus::kCreated;
      if (!begun || ended_ || parked_ >= parts_) co_return;
    }
    co_await rests_.next(seen);
  }
}

void Job::let_go() {
  const std::lock_guard lock(*mutex_);
  --pauses_;
  release_pause();
}

void Job::park(bool parked) {
  const std::lock_guard lock(*mutex_);
  parked_ += parked ? 1 : -1;
  settle_pause();
  rests_.notify();
}

Task<void> Job::pause_point() {
  bool waited = false;
  while (true) {
    const uint64_t seen = changed_.count();
    {
      const std::lock_guard lock(*mutex_);
      if (waited) --parked_;
      stop_.check();
      // What follows the work is for the graph's lock to hold back.
      if (pauses_ == 0 || ended_) co_return;
      waited = true;
      ++parked_;
      settle_pause();
      rests_.notify();
    }
    co_await changed_.next(seen);
  }
}

Task<void> Job::idle(std::chrono::nanoseconds longest) {
  const uint64_t seen = changed_.count();
  {
    const std::lock_guard lock(*mutex_);
    ++parked_;
    settle_pause();
    rests_.notify();
  }
  const auto end = Clock::now() + longest;
  for (auto now = Clock::now(); now < end && changed_.count() == seen; now = Clock::now())
    co_await sleep_for(std::min<Clock::duration>(end - now, kSleepSlice));
  const std::lock_guard lock(*mutex_);
  --parked_;
}

Task<void> Job::admit(uint64_t bytes) {
  while (true) {
    co_await pause_point();
    if (ended()) co_return;
    const auto wait = speed_.take(bytes);
    if (wait == Speed::Clock::duration::zero()) co_return;
    co_await idle(wait);
  }
}

void Job::become_ready() {
  const std::lock_guard lock(*mutex_);
  set_status(JobStatus::kReady);
  emit(event_of(JobEvent::Kind::kReady));
}

void Job::change_parts(int count) {
  const std::lock_guard lock(*mutex_);
  parts_ += count;
  settle_pause();
  rests_.notify();
}

Task<ErrorAction> Job::request_failed(OnError policy, JobSide side, Error error,
                                      unsigned failures) {
  ErrorAction action = action_for(policy, error);
  {
    const std::lock_guard lock(*mutex_);
    // Nobody can wait for better times between the work and its consequences.
    if (ended_) action = ErrorAction::kReport;
    const auto now = Clock::now();
    // A lasting error is repeated often, and worth saying now and then.
    if (action != ErrorAction::kIgnore || error_told_ == Clock::time_point{} ||
        now - error_told_ >= kErrorPeriod) {
      if (action == ErrorAction::kIgnore) error_told_ = now;
      JobEvent event = event_of(JobEvent::Kind::kError);
      event.side = side;
      event.action = action;
      emit(std::move(event));
    }
    if (action == ErrorAction::kStop) {
      io_status_ = error.error_number() == ENOSPC ? IoStatus::kNoSpace : IoStatus::kFailed;
      if (!user_paused_) ++pauses_;
      user_paused_ = true;
    }
  }
  if (action == ErrorAction::kIgnore)
    co_await idle(std::min(kLongestRetry, kFirstRetry * (1 << std::min(failures, 7U))));
  co_return action;
}

// --- status and events ---

void Job::set_status(JobStatus next) {
  if (!may_follow(status_, next)) return;
  status_ = next;
  JobEvent event;
  event.kind = JobEvent::Kind::kStatus;
  event.id = id();
  event.type = type_;
  event.status = next;
  emit(std::move(event));
  changed_.notify();
}

JobEvent Job::event_of(JobEvent::Kind kind) const {
  return {.kind = kind,
          .id = id(),
          .type = type_,
          .status = status_,
          .done = done(),
          .total = total(),
          .speed = speed_shown_,
          .error = error_,
          .side = JobSide::kRead,
          .action = ErrorAction::kReport};
}

void Job::emit(JobEvent event) const {
  const bool block_event = event.kind != JobEvent::Kind::kStatus;
  if (listener_ == nullptr || !*listener_ || (block_event && !is_block_job())) return;
  (*listener_)(event);
}

}  // namespace cairn::live
