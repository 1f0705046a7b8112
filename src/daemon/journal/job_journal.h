// src/daemon/journal: the jobs of a daemon that go on in a later process, though this one is killed
// or loses power. What is kept is in journal_text.h, who keeps it in job_journal.h, what a job
// needs of the graph in job_disks.h. May include all of src/daemon.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/async.h"
#include "daemon/journal/job_disks.h"
#include "daemon/journal/journal_text.h"
#include "job/live/job.h"
#include "job/live/progress.h"
#include "operation/durable_file.h"

namespace cairn::daemon {

class Daemon;

// Keeps the jobs of a daemon in a file. On the daemon's worker, but for record() and end().
//
// The order that makes it right: what becomes unequal, or must not be copied again, is in the file
// before it happens (ProgressStore); what has become equal is taken out once a second, when source
// and target are stable. Where the file cannot be written it is emptied, so that nobody believes
// what it says, and it is tried again each second.
class JobJournal final : public live::ProgressStore {
 public:
  JobJournal(Daemon& daemon, std::string path);

  const std::string& path() const { return file_.path(); }
  // Takes the file, and reads what an earlier daemon has left. FROM_OTHER: that one hands its jobs
  // over by itself. Before nodes are opened: looks at the files of the jobs. Throws what is wrong
  // with the file.
  Task<void> open(bool from_other);
  // True where jobs wait for resume().
  bool has_jobs() const { return !waiting_.empty(); }
  // Begins them where they were, when the nodes of the command line are there; opens those that are
  // missing. What cannot be continued becomes a job that has failed. Throws nothing of a job.
  Task<void> resume();

  // What JobRecipes has of jobs that are new is in the file when this returns.
  Task<void> note_new();
  // Stores how the jobs are now, where the file says something else; and that the daemon is there.
  Task<void> write();
  // Does that once a second until stop(), and also takes out what is stable by then.
  Task<void> serve();
  Task<void> stop();
  // Nobody writes to the disks any more: what is left is stored, and that jobs end from now on
  // means nothing to the file.
  Task<void> hold();
  // All disks are closed: others may have the file.
  Task<void> release();

  Task<bool> record(std::string id, bool open, live::Runs runs) override;
  bool suspends() const override { return holding_.load(); }
  Task<bool> end(std::string id, bool switched) override;

 private:
  // A job that can be continued.
  struct Known {
    live::JobPtr job;
    JournalJob record;  // less what changes
    // The file says that it is to be continued: lines about it make sense there.
    bool in_file = false;
    bool over = false;  // it is concluding, and nothing is left of it to be said
    std::string ended;  // why it is not continued though it is there; empty: it is
  };
  std::vector<JournalJob> take_next();
  Task<void> begin_again(const std::vector<JournalJob>& jobs);
  void start_lost(live::JobType type, const std::string& id, const std::string& reason);
  Task<bool> note(live::JobPtr job);
  Known* known(const std::string& id);
  std::string end_of_others(const Known& one);
  Journal capture();
  JournalJob capture_job(const live::JobPtr& job, const live::JobInfo& info);
  Task<void> settle_all();
  Task<void> settle_often();
  Task<void> write_time();
  Task<bool> append(std::string line);
  Task<void> give_up(std::string reason);
  bool is_in_file(const Journal& journal) const;

  Daemon& daemon_;
  Nap nap_;
  Nap settling_nap_;
  Mutex turn_;  // of what follows
  operation::DurableFile file_;
  JournalWriter writer_;
  std::map<std::string, Known> known_;
  std::vector<JournalJob> waiting_;                // read, and not begun again yet
  std::map<std::string, DisksFound> found_;        // by job: its files as they were then
  Journal held_;                                   // what hold() stored
  std::map<std::string, live::JobPtr> held_jobs_;  // those of which it is known what they have left
  std::string written_;                            // the jobs, as they were written last
  bool changed_since_ = false;                     // lines about jobs were appended since then
  size_t appended_ = 0;                            // bytes since then
  std::atomic<bool> holding_{false};
  bool resumed_ = false;  // what was read is not needed any more: the file may be written
  bool down_ = false;     // nothing is kept
  bool stale_ = false;    // and what the file says is wrong
};

}  // namespace cairn::daemon
