#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "async/signal.h"
#include "async/task.h"
#include "block/context.h"
#include "job/live/job.h"

namespace cairn::live {

// Jobs that conclude together: each waits until all have done their work, and one that fails or is
// cancelled makes all others end as well.
class Transaction {
 private:
  friend class Job;
  friend class Jobs;
  std::vector<JobPtr> jobs_;  // in the order in which they came
  size_t running_ = 0;        // those whose work has not ended
  bool aborting_ = false;
  bool finalizing_ = false;
  bool committing_ = false;  // nothing can fail any more
  Signal changed_;
};

// The jobs of a process. From any worker.
class Jobs {
 public:
  Jobs(Context& context, JobListener listener)
      : context_(context), listener_(std::move(listener)) {}

  // Throws kInvalid where ID is none, or one of a job that is there.
  void check_id(std::string_view id) const;
  // Puts a job into the list, and into TRANSACTION unless null. Throws as check_id(), and kInvalid
  // for a negative speed, after which the job is gone again.
  void add(const JobPtr& job, std::shared_ptr<Transaction> transaction = nullptr);
  // Begins the work of a job that was added.
  void start(const JobPtr& job);
  // Takes out a job that was added and cannot be started. TOGETHER: with others of a transaction.
  void withdraw(const JobPtr& job, bool together = false);
  // Throws kNotFound.
  JobPtr get(std::string_view id) const;
  // Null when there is none.
  JobPtr find(std::string_view id) const;
  // Newest first.
  std::vector<JobPtr> list() const;
  // Cancels all jobs, waits until they have concluded, and dismisses them.
  Task<void> shutdown();

 private:
  friend class Job;
  Task<void> live(JobPtr job);
  bool settle(Job& job, std::exception_ptr error);
  Task<void> conclude(std::shared_ptr<Transaction> transaction);
  Task<bool> permitted(Transaction& transaction);
  Task<void> conclude_one(JobPtr job, bool done);
  static void start_abort(Transaction& transaction, Job& job);
  void drop(Job& job);

  Context& context_;
  JobListener listener_;
  mutable std::mutex mutex_;
  std::vector<JobPtr> jobs_;  // oldest first
  size_t alive_ = 0;          // coroutines that have not ended
  Signal ended_;
};

}  // namespace cairn::live
