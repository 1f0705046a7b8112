#pragma once

#include <string>

#include "protocol/sheepdog/link.h"
#include "protocol/worker_links.h"

namespace cairn::sheepdog {

// The connections of one disk to a cluster: each resident worker has its own; all others use the
// first one. Methods are called on any worker.
class Cluster {
 public:
  Cluster(Runtime& runtime, Target target);

  // Connects. Throws; close() is to be awaited also then.
  Task<void> open();
  // Sends the request, again while the cluster says that it is not ready, and gives the daemon's
  // result. Throws kIo when there is no answer before the timeout.
  Task<Result> ask(Operation& operation);
  // The same; throws what a result other than success stands for, after WHAT.
  Task<void> perform(Operation& operation, std::string what);
  // The VDI that connections made from now on lock again.
  Task<void> keep_lock(std::string name, uint32_t vdi);
  // No connection is made any more: what can still be asked is asked quickly or not at all.
  Task<void> stop_repairs();
  Task<void> close() { return links_.close(); }

  const Target& target() const { return target_; }

 private:
  Runtime& runtime_;
  const Target target_;
  WorkerLinks<Link> links_;
};

}  // namespace cairn::sheepdog
