#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unfinished.h"
#include "block/open.h"
#include "operation/caller.h"

namespace cairn::operation {

// One image to be served.
struct ImagePlan {
  OpenRequest request;
  std::string title;  // how messages name it
  std::string name;   // of the export
  std::string description;
  bool snapshot = false;                     // below a temporary overlay
  std::optional<std::string> load_snapshot;  // show this internal snapshot, read-only
  uint64_t offset = 0;
  bool exact_size = false;  // not rounded to sectors
  bool allocation_depth = false;
  std::vector<std::string> bitmaps;
  std::string throttle_group;  // the object whose limits requests keep to; empty: none
  // Completes the request once the server listens; may throw. None: it is complete.
  std::function<void(OpenRequest&)> complete;
  // The words for an error of opening; none: as it is.
  std::function<Error(const Error&)> explain;
};

// Opens the image of PLAN, which must live until the task has ended; the node goes to NODES for
// closing. Throws.
Task<NodePtr> open_served_image(Caller& caller, const ImagePlan& plan, std::vector<NodePtr>& nodes);

// While it exists, a program that ends before the disks of servers were flushed names those of
// NODES that are written.
class UnflushedDisks {
 public:
  void add(const Node& node);

 private:
  std::vector<std::unique_ptr<Unfinished>> disks_;
};

// Until OVER is requested; once CALLER cancels, nothing waits any more for limits of NODES and what
// is below them: it is done before the end. Never throws.
Task<void> lift_limits_in_the_end(Caller& caller, std::vector<Node*> nodes, CancelSource& over);

// Writes the number of this process to PATH, which stays locked until the process ends: two servers
// do not share it. Throws.
Task<void> write_pid_file(std::string path);

}  // namespace cairn::operation
