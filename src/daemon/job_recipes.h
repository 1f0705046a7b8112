#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/value.h"
#include "block/dirty_bitmap.h"
#include "job/live/job.h"

namespace cairn::daemon {

class Daemon;

// With which commands the jobs of a daemon were begun, so that another process, or a later one,
// continues them. On the daemon's worker.
class JobRecipes {
 public:
  struct Recipe {
    std::string command;
    Value arguments;
    std::weak_ptr<live::Job> job = {};
    std::string group = {};  // a name of those that conclude together; empty: it is alone
  };

  // True for commands that begin jobs which can be begun again.
  static bool concerns(const std::string& command);
  // COMMAND was carried out with ARGUMENTS, which were checked, and began JOB.
  void note(const std::string& command, Value arguments, const live::JobPtr& job,
            const std::string& group = {});
  // Null where there is none of JOB itself: another one may have had its ID.
  const Recipe* find(const live::JobPtr& job) const;

  // What a job begins with when it is begun again.
  struct Left {
    DirtyBitmapPtr remaining;      // null: all that there is to do
    DirtyBitmapPtr written_since;  // null: nothing was written
  };
  // For the job ID. The first sets it for the next command, which takes it.
  void set_left(const std::string& id, Left left);
  Left take_left(const std::string& id);

 private:
  std::map<std::string, Recipe> recipes_;
  std::map<std::string, Left> left_;
};

}  // namespace cairn::daemon
