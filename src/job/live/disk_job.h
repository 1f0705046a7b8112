#pragma once

#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/graph/graph.h"
#include "job/live/job.h"
#include "job/live/job_filter.h"
#include "job/live/jobs.h"
#include "job/live/progress.h"

namespace cairn::live {

// A job on nodes of a graph. It works on the nodes themselves: its Roots say what it does with them
// and make the graph hold it back while it changes what is below them.
class DiskJob : public Job, public RootOwner {
 public:
  DiskJob(JobType type, JobOptions options, Graph& graph)
      : Job(type, std::move(options)), graph_(graph) {}

  // What was not copied, once the job has ended: what the same job begins with when it is
  // continued. Null: it finds that out from the images.
  virtual DirtyBitmapPtr remaining() const { return nullptr; }

  // What was written since the job began, for the bitmap that it ends with; null where it has none.
  virtual DirtyBitmapPtr written_since() const { return nullptr; }
  // Null where nothing keeps it, or the images themselves say what is left.
  virtual std::shared_ptr<JobProgress> progress() const { return nullptr; }

  Task<void> rest() override { return hold_back(); }
  void wake() override { let_go(); }

 protected:
  // Takes its nodes, with the graph's lock held. What it did until it throws, release() undoes.
  virtual Task<void> set_up() = 0;
  // What is done in any case when the job ends or could not be set up, with the lock held.
  virtual Task<void> tear_down() { co_return; }
  Task<void> clean() override;

  Graph& graph() const { return graph_; }
  // The job uses NODE from now on. BLOCKS: commands may not change it.
  Task<void> use(NodePtr node, std::string role, uint8_t takes, uint8_t shares, bool blocks);
  // Puts FILTER, whose lower node is BELOW, between that and all others that use it. NAME empty:
  // one is made.
  Task<void> insert(std::shared_ptr<JobFilter> filter, NodePtr below, std::string name);
  // Those who use the filter use NODE from now on.
  Task<void> give_users_to(NodePtr node);
  const std::shared_ptr<JobFilter>& filter() const { return filter_; }
  // The job takes nothing any more, and forbids nothing.
  Task<void> let_all();

 private:
  friend Task<void> launch_prepare(Jobs& jobs, std::shared_ptr<DiskJob> job,
                                   std::shared_ptr<Transaction> transaction);
  friend Task<void> launch_undo(Jobs& jobs, std::shared_ptr<DiskJob> job);
  Task<void> release();

  Graph& graph_;
  std::vector<RootPtr> roots_;
  std::shared_ptr<JobFilter> filter_;  // null: none, or not any more
};

// Adds JOB to the list, takes its nodes and starts it. The graph's lock is held. Throws as
// Jobs::add(), and what is wrong with the nodes; the job is gone again then.
Task<void> launch(Jobs& jobs, std::shared_ptr<DiskJob> job,
                  std::shared_ptr<Transaction> transaction = nullptr);
// For steps of transactions, of which each has its Transaction where the jobs do not conclude
// together: jobs are prepared, and started when all are.
Task<void> launch_prepare(Jobs& jobs, std::shared_ptr<DiskJob> job,
                          std::shared_ptr<Transaction> transaction);
// A job that was prepared goes again.
Task<void> launch_undo(Jobs& jobs, std::shared_ptr<DiskJob> job);

}  // namespace cairn::live
