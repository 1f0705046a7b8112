#pragma once

#include <memory>
#include <optional>
#include <string>

#include "job/live/disk_job.h"
#include "job/live/layers.h"

namespace cairn::live {

struct StreamRequest {
  NodePtr device;
  NodePtr base;  // null: the whole chain is copied
  // What the image says of its backing file in the end, as it is; nothing: the base's name.
  std::optional<std::string> backing_file;
  bool device_was_read_only = false;  // and is to be again
  std::string filter_name;            // empty: one is made
  OnError on_error = OnError::kReport;
};

// Copies what the layers between a disk and a base of its chain store into the disk, whose backing
// file is the base afterwards.
class StreamJob final : public DiskJob {
 public:
  // Throws where the request makes no sense, or somebody relies on the nodes.
  static void check(const Graph& graph, const StreamRequest& request);
  StreamJob(JobOptions options, Graph& graph, StreamRequest request);

 protected:
  Task<void> set_up() override;
  Task<void> run() override;
  Task<void> prepare() override;
  Task<void> tear_down() override;

 private:
  const StreamRequest request_;
  unsigned layers_ = 0;  // that are above the base
  bool frozen_ = false;
};

}  // namespace cairn::live
