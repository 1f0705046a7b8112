#pragma once

#include <string>

#include "block/capabilities/amendable.h"
#include "job/live/disk_job.h"

namespace cairn::live {

struct AmendmentRequest {
  NodePtr node;
  // The encryption that the changes are for, "luks" or "qcow", where the format has several; empty
  // where nothing is changed about it.
  std::string encryption;
  AmendRequest changes;  // no options: nothing is changed
};

// Changes the options of an image that is in use: one step, which says in the end how it went.
class AmendJob final : public DiskJob {
 public:
  AmendJob(JobOptions options, Graph& graph, AmendmentRequest request)
      : DiskJob(JobType::kAmend, std::move(options), graph), request_(std::move(request)) {}

 protected:
  Task<void> set_up() override;
  Task<void> run() override;

 private:
  Task<void> change();

  AmendmentRequest request_;
};

}  // namespace cairn::live
