#include "job/live/disk_job.h"

#include <utility>

#include "async/finally.h"
#include "block/context.h"

namespace cairn::live {

Task<void> DiskJob::use(NodePtr node, std::string role, uint8_t takes, uint8_t shares,
                        bool blocks) {
  NodeUse how;
  const std::string word(to_string(type()));
  how.user = word + " job '" + id() + "'";
  how.job = id();
  how.role = std::move(role);
  how.takes = takes;
  how.shares = shares;
  if (blocks) how.blocks = "block device is in use by block job: " + word;
  how.owner = this;
  RootPtr root = co_await graph_.attach(std::move(node), std::move(how));
  roots_.push_back(std::move(root));
}

Task<void> DiskJob::insert(std::shared_ptr<JobFilter> filter, NodePtr below, std::string name) {
  graph_.adopt(filter, name);
  co_await graph_.replace(below, filter, [](const Root& root) { return root.use().job.empty(); });
  filter_ = std::move(filter);
  co_await use(filter_, "main node", 0, Permissions::kAll, true);
}

Task<void> DiskJob::give_users_to(NodePtr node) {
  co_await graph_.replace(filter_, std::move(node),
                          [](const Root& root) { return root.use().job.empty(); });
}

Task<void> DiskJob::let_all() {
  for (const RootPtr& root : roots_) co_await graph_.change_use(root, 0, Permissions::kAll);
}

// What fails here has been said or cannot be helped: the nodes stay usable.
Task<void> DiskJob::release() {
  const auto attempt = [this](Task<void> work) -> Task<void> {
    try {
      co_await work;
    } catch (const Error& error) {
      graph_.context().warn("job '" + id() + "': " + error.message());
    }
  };
  co_await attempt(tear_down());
  if (filter_) co_await attempt(give_users_to(filter_->below()));
  for (RootPtr& root : std::exchange(roots_, {})) co_await attempt(graph_.detach(std::move(root)));
  filter_ = nullptr;
  co_await attempt(graph_.sweep());
}

Task<void> DiskJob::clean() {
  const auto change = co_await graph_.change();
  co_await release();
}

Task<void> launch_prepare(Jobs& jobs, std::shared_ptr<DiskJob> job,
                          std::shared_ptr<Transaction> transaction) {
  const bool together = transaction != nullptr;
  jobs.add(job, std::move(transaction));
  co_await on_failure([&] { return job->set_up(); },
                      [&]() -> Task<void> {
                        co_await job->release();
                        jobs.withdraw(job, together);
                      });
}

Task<void> launch_undo(Jobs& jobs, std::shared_ptr<DiskJob> job) {
  co_await job->release();
  jobs.withdraw(job, true);
}

Task<void> launch(Jobs& jobs, std::shared_ptr<DiskJob> job,
                  std::shared_ptr<Transaction> transaction) {
  co_await launch_prepare(jobs, job, std::move(transaction));
  jobs.start(job);
}

}  // namespace cairn::live
