#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/value.h"
#include "block/dirty_bitmap.h"

namespace cairn::daemon {

class Daemon;

// With which commands the jobs of a daemon were begun, so that another process, or a later one,
// continues them. On the daemon's worker.
class JobRecipes {
 public:
  struct Recipe {
    std::string command;
    Value arguments;
  };

  // True for commands that begin jobs which can be begun again.
  static bool concerns(const std::string& command);
  // COMMAND was carried out with ARGUMENTS, which were checked.
  void note(const std::string& command, Value arguments);
  // The job has concluded.
  void forget(const std::string& id) { recipes_.erase(id); }
  // Null where there is none.
  const Recipe* find(const std::string& id) const;

  // What the job ID begins with when it is begun again; null: all that there is to do. The first
  // sets it for the next command, which takes it.
  void set_remaining(const std::string& id, DirtyBitmapPtr bitmap);
  DirtyBitmapPtr take_remaining(const std::string& id);

 private:
  std::map<std::string, Recipe> recipes_;
  std::map<std::string, DirtyBitmapPtr> remaining_;
};

}  // namespace cairn::daemon
