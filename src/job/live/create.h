#pragma once

#include <map>
#include <string>
#include <variant>

#include "block/driver.h"
#include "job/live/disk_job.h"

namespace cairn::live {

// A file for an image: the name of a node, or the options of one that is opened for the job.
using CreationFile = std::variant<std::string, Options>;

// What is made.
struct CreationRequest {
  const Driver* driver = nullptr;
  // For formats: "file", which is to hold the image, and the others that it has, as those of
  // CreateRequest::parts are called.
  std::map<std::string, CreationFile> files;
  CreateRequest image;  // without its files
  std::string refusal;  // why it cannot be made, found before; the job says it
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
  Task<void> take_files();
  Task<NodePtr> take_file(CreationFile which);
  Task<void> make();

  CreationRequest request_;
};

}  // namespace cairn::live
