#pragma once

#include <optional>
#include <string>

#include "job/live/disk_job.h"
#include "job/live/layers.h"

namespace cairn::live {

struct CommitRequest {
  NodePtr top;   // below the disk that is in use
  NodePtr base;  // below TOP; writable
  // What the images above TOP say of their backing file in the end; nothing: the base's name.
  std::optional<std::string> backing_file;
  bool base_was_read_only = false;  // and is to be again
  std::string filter_name;          // empty: one is made
  OnError on_error = OnError::kReport;
};

// Copies what a layer of a chain, and those between it and a base, store into the base, which is
// the backing file of the images above that layer afterwards. The active layer of a disk is
// committed by a MirrorJob.
class CommitJob final : public DiskJob {
 public:
  CommitJob(JobOptions options, Graph& graph, CommitRequest request);

 protected:
  Task<void> set_up() override;
  Task<void> run() override;
  Task<void> prepare() override;
  Task<void> tear_down() override;

 private:
  void thaw();

  const CommitRequest request_;
  unsigned layers_ = 0;
  bool frozen_ = false;
};

}  // namespace cairn::live
