#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/signal.h"
#include "async/task.h"
#include "base/error.h"
#include "job/live/speed.h"
#include "job/live/types.h"

namespace cairn::live {

class CopyEngine;
class Jobs;
class Transaction;

// Work on open nodes while others use them. What people ask of it may be called from any
// worker, and throws kInvalid, in the words of QMP, where the job's state refuses it.
//
// A class of jobs has run() and the steps that follow it. It asks pause_point() before every
// request, so that the job can be paused and cancelled, and admit() for what it copies.
class Job : public std::enable_shared_from_this<Job> {
 public:
  Job(JobType type, JobOptions options);
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  const std::string& id() const { return options_.id; }
  JobType type() const { return type_; }
  // Jobs on disks have the commands and events of block jobs; those that make images have not.
  bool is_block_job() const { return type_ != JobType::kCreate && type_ != JobType::kAmend; }
  JobInfo info();

  // Once for each user; resume() sets the io-status to ok.
  void pause();
  void resume();
  // FORCE false: a job that is ready ends with what it has, and not with an error. Returns at once
  // while the job has work under way, else when it has concluded.
  Task<void> cancel(bool force);
  // A job that is ready makes what it does final. Returns at once.
  void complete();
  // Lets all jobs of the transaction make their changes; returns when this one has concluded.
  Task<void> finalize();
  void dismiss();
  void set_speed(int64_t bytes_per_second);
  // Throws where the job's state does not accept VERB.
  void check_verb(JobVerb verb) const;

  // Waits until the job has concluded.
  Task<void> concluded();

 protected:
  // The work. Throws what makes the job fail, and kCancelled out of pause_point().
  virtual Task<void> run() = 0;
  // All jobs of the transaction have done their work. Throws what makes them all fail.
  virtual Task<void> prepare() { co_return; }
  // Nothing can fail any more; or: the job failed or was cancelled. Then, in both cases, clean().
  // None may throw.
  virtual Task<void> commit() { co_return; }
  virtual Task<void> abort() { co_return; }
  virtual Task<void> clean() { co_return; }
  // Whether complete() makes sense, and what it begins.
  virtual bool can_complete() const { return false; }
  // Sets what is done and altogether, where that is not counted on the way.
  virtual void refresh_progress() {}
  virtual std::optional<bool> actively_synced() const { return std::nullopt; }

  // --- for run() and what it starts; from any worker ---
  // Waits while the job is paused. Throws kCancelled when it is to end.
  Task<void> pause_point();
  // Waits until BYTES may be copied, as the speed says. Throws kCancelled.
  Task<void> admit(uint64_t bytes);
  uint64_t speed() const { return speed_.rate(); }
  // Sleeps, at most so long, until somebody asks something of the job or NOTICE is given; counts as
  // paused for who waits for that.
  Task<void> idle(std::chrono::nanoseconds longest);
  void notice() { changed_.notify(); }
  void set_total(uint64_t units) { total_.store(units, std::memory_order_relaxed); }
  void add_total(uint64_t units) { total_.fetch_add(units, std::memory_order_relaxed); }
  void add_done(uint64_t units) { done_.fetch_add(units, std::memory_order_relaxed); }
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }
  uint64_t done() const { return done_.load(std::memory_order_relaxed); }
  // The target is equal to the source: what remains is to be asked for.
  void become_ready();
  bool completing() const { return completing_.load(std::memory_order_relaxed); }
  // cancel() of a job that was ready, without force.
  bool ending_softly() const { return ending_softly_.load(std::memory_order_relaxed); }
  bool cancelled() const { return stop_.requested(); }
  const CancelSource& stop() const { return stop_; }
  // A request failed: says so in an event, and what to do. With kIgnore it has waited a while that
  // grows with FAILURES, the number of failures of this request before; with kStop the job is
  // paused, which the next pause_point() sees.
  Task<ErrorAction> request_failed(OnError policy, JobSide side, Error error, unsigned failures);
  // COUNT more coroutines take part, each of which asks pause_point(), or fewer. run() itself is
  // one at first.
  void change_parts(int count);
  // While it is there one of those waits for something that others have to end first.
  class Resting {
   public:
    explicit Resting(Job& job) : job_(job) { job_.park(true); }
    ~Resting() { job_.park(false); }
    Resting(const Resting&) = delete;

   private:
    Job& job_;
  };
  // Waits until nothing of the job is under way; nothing begins until let_go(). Calls nest.
  Task<void> hold_back();
  void let_go();
  // The work has, and its consequences follow: nothing waits for speed, pauses or better times.
  bool ended() const;

 private:
  friend class CopyEngine;
  friend class Jobs;
  friend class Transaction;

  // All below: the mutex of the list is held.
  void set_status(JobStatus next);
  void emit(JobEvent event) const;
  JobEvent event_of(JobEvent::Kind kind) const;
  void check_verb_locked(JobVerb verb) const;
  void release_pause();
  void settle_pause();
  void park(bool parked);
  void request_cancel();

  const JobType type_;
  const JobOptions options_;
  std::mutex own_mutex_;  // until it is in a list
  std::mutex* mutex_ = &own_mutex_;
  Jobs* list_ = nullptr;
  const JobListener* listener_ = nullptr;
  std::shared_ptr<Transaction> transaction_;
  CancelSource stop_;
  Signal changed_;  // something was asked, or the status is another
  Signal rests_;    // fewer coroutines are at work
  Speed speed_;
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> total_{0};
  std::atomic<bool> completing_{false};
  std::atomic<bool> ending_softly_{false};
  // Guarded by the mutex:
  JobStatus status_ = JobStatus::kUndefined;
  int64_t speed_shown_ = 0;
  unsigned pauses_ = 0;
  bool user_paused_ = false;
  int parts_ = 1;
  int parked_ = 0;
  bool ended_ = false;  // run() has
  IoStatus io_status_ = IoStatus::kOk;
  std::optional<std::string> error_;
  std::chrono::steady_clock::time_point error_told_{};
};

using JobPtr = std::shared_ptr<Job>;

}  // namespace cairn::live
