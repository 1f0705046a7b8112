#include "job/live/jobs.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "async/runtime.h"

namespace cairn::live {
namespace {

bool well_formed(std::string_view id) {
  if (id.empty() || std::isalpha(static_cast<unsigned char>(id.front())) == 0) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace

void Jobs::check_id(std::string_view id) const {
  if (!well_formed(id)) invalid("Invalid job ID '" + std::string(id) + "'");
  if (find(id)) invalid("Job ID '" + std::string(id) + "' already in use");
}

void Jobs::add(const JobPtr& job, std::shared_ptr<Transaction> transaction) {
  const bool together = transaction != nullptr;
  if (!together) transaction = std::make_shared<Transaction>();
  check_id(job->id());
  {
    const std::lock_guard lock(mutex_);
    job->mutex_ = &mutex_;
    job->list_ = this;
    job->listener_ = &listener_;
    jobs_.push_back(job);
    transaction->jobs_.push_back(job);
    ++transaction->running_;
    job->transaction_ = std::move(transaction);
    job->set_status(JobStatus::kCreated);
  }
  if (job->options_.speed >= 0) return;
  withdraw(job, together);
  invalid("Parameter 'speed' expects a non-negative value");
}

void Jobs::start(const JobPtr& job) {
  {
    const std::lock_guard lock(mutex_);
    job->set_status(JobStatus::kRunning);
    ++alive_;
  }
  spawn_detached_on(context_.runtime().next_worker(), live(job));
}

void Jobs::withdraw(const JobPtr& job, bool together) {
  const std::lock_guard lock(mutex_);
  auto& others = job->transaction_->jobs_;
  others.erase(std::find(others.begin(), others.end(), job));
  --job->transaction_->running_;
  job->transaction_ = nullptr;
  if (together) {
    job->set_status(JobStatus::kAborting);
    job->set_status(JobStatus::kConcluded);
  }
  drop(*job);
}

JobPtr Jobs::find(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(jobs_.begin(), jobs_.end(), [&](const JobPtr& job) { return job->id() == id; });
  return found == jobs_.end() ? nullptr : *found;
}

JobPtr Jobs::get(std::string_view id) const {
  JobPtr job = find(id);
  if (!job) throw Error(ErrorKind::kNotFound, "Job not found");
  return job;
}

std::vector<JobPtr> Jobs::list() const {
  const std::lock_guard lock(mutex_);
  return {jobs_.rbegin(), jobs_.rend()};
}

// mutex_ is held; the caller has a reference of its own.
void Jobs::drop(Job& job) {
  job.set_status(JobStatus::kNull);
  std::erase_if(jobs_, [&](const JobPtr& one) { return one.get() == &job; });
}

void Job::dismiss() {
  const JobPtr self = shared_from_this();
  const std::lock_guard lock(*mutex_);
  check_verb_locked(JobVerb::kDismiss);
  list_->drop(*this);
}

// --- from the start to the end ---

Task<void> Jobs::live(JobPtr job) {
  std::exception_ptr error;
  try {
    co_await job->run();
  } catch (...) {
    error = std::current_exception();
  }
  const std::shared_ptr<Transaction> transaction = job->transaction_;
  if (settle(*job, error)) co_await conclude(transaction);
  job = nullptr;
  const std::lock_guard lock(mutex_);
  --alive_;
  ended_.notify();
}

// The work has ended. True where it was the last one of the transaction.
bool Jobs::settle(Job& job, std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  job.ended_ = true;
  job.rests_.notify();
  bool failed = job.cancelled();
  if (error) {
    failed = true;
    try {
      std::rethrow_exception(error);
    } catch (const Error& caught) {
      if (caught.kind() != ErrorKind::kCancelled || !job.cancelled()) job.error_ = caught.message();
    } catch (const std::exception& caught) {
      job.error_ = caught.what();
    }
  }
  Transaction& transaction = *job.transaction_;
  if (failed)
    start_abort(transaction, job);
  else
    job.set_status(transaction.aborting_ ? JobStatus::kAborting : JobStatus::kWaiting);
  return --transaction.running_ == 0;
}

// mutex_ is held. JOB, whose work has ended, failed or was cancelled: so do all others.
void Jobs::start_abort(Transaction& transaction, Job& job) {
  job.set_status(JobStatus::kAborting);
  if (std::exchange(transaction.aborting_, true)) return;
  for (const JobPtr& other : transaction.jobs_) {
    if (other.get() == &job) continue;
    if (other->ended_) {
      other->stop_.request();
      other->set_status(JobStatus::kAborting);
    } else {
      other->request_cancel();
    }
  }
  transaction.changed_.notify();
}

// The newest one first.
Task<void> Jobs::conclude(std::shared_ptr<Transaction> transaction) {
  const bool done = co_await permitted(*transaction);
  const std::vector<JobPtr> jobs(transaction->jobs_.rbegin(), transaction->jobs_.rend());
  for (const JobPtr& job : jobs) co_await conclude_one(job, done);
  const std::lock_guard lock(mutex_);
  transaction->jobs_.clear();
}

// Waits for the permission to make changes, where it is not given from the start. False when the
// jobs have to be undone.
Task<bool> Jobs::permitted(Transaction& transaction) {
  bool asks = false;
  std::vector<JobPtr> jobs;
  {
    const std::lock_guard lock(mutex_);
    if (transaction.aborting_) co_return false;
    jobs.assign(transaction.jobs_.rbegin(), transaction.jobs_.rend());
    for (const JobPtr& job : jobs) {
      job->set_status(JobStatus::kPending);
      if (job->options_.auto_finalize) continue;
      job->emit(job->event_of(JobEvent::Kind::kPending));
      asks = true;
    }
  }
  while (true) {
    const uint64_t seen = transaction.changed_.count();
    {
      const std::lock_guard lock(mutex_);
      if (transaction.aborting_) co_return false;
      if (!asks || transaction.finalizing_) break;
    }
    co_await transaction.changed_.next(seen);
  }
  for (const JobPtr& job : jobs) {
    std::optional<std::string> failure;
    try {
      co_await job->prepare();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    const std::lock_guard lock(mutex_);
    if (failure) {
      job->error_ = failure;
      start_abort(transaction, *job);
    }
    if (transaction.aborting_) co_return false;
  }
  const std::lock_guard lock(mutex_);
  transaction.committing_ = !transaction.aborting_;
  co_return transaction.committing_;
}

Task<void> Jobs::conclude_one(JobPtr job, bool done) {
  job->refresh_progress();
  if (done)
    co_await job->commit();
  else
    co_await job->abort();
  co_await job->clean();
  const std::lock_guard lock(mutex_);
  if (done || job->error_) {
    job->emit(job->event_of(JobEvent::Kind::kCompleted));
  } else {
    job->emit(job->event_of(JobEvent::Kind::kCancelled));
    job->error_ = "Operation canceled";
  }
  job->transaction_ = nullptr;
  job->set_status(JobStatus::kConcluded);
  if (job->options_.auto_dismiss) drop(*job);
}

Task<void> Jobs::shutdown() {
  for (const JobPtr& job : list()) {
    try {
      co_await job->cancel(true);
    } catch (const Error&) {
      // It has concluded already.
    }
  }
  while (true) {
    const uint64_t seen = ended_.count();
    {
      const std::lock_guard lock(mutex_);
      if (alive_ == 0) break;
    }
    co_await ended_.next(seen);
  }
  const std::vector<JobPtr> left = list();
  const std::lock_guard lock(mutex_);
  for (const JobPtr& job : left) drop(*job);
}

}  // namespace cairn::live
