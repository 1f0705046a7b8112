#pragma once

#include <functional>
#include <optional>
#include <string>

#include "block/driver.h"
#include "job/live/disk_job.h"

namespace cairn::live {

// What is made. FILE_NODE, for formats, is the name of the node that is to hold the image.
struct CreationRequest {
  const Driver* driver = nullptr;
  std::string file_node;
  CreateRequest image;  // without its file
};

// Makes a file, or an image in the file of a node: one step, which says in the end how it went.
class CreateJob final : public DiskJob {
 public:
  CreateJob(JobOptions options, Graph& graph, CreationRequest request)
      : DiskJob(JobType::kCreate, std::move(options), graph), request_(std::move(request)) {}

 protected:
  Task<void> set_up() override { co_return; }
  Task<void> run() override;

 private:
  Task<void> take_file();
  Task<void> make();

  CreationRequest request_;
};

}  // namespace cairn::live
